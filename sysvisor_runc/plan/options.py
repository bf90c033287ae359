"""Mount options of config.json: what each word means for the kernel (mount(8), runtime-spec "Linux mount options").

Pure.
"""

from __future__ import annotations

from sysvisor_runc.child.mounts import Attributes
from sysvisor_runc.kernel import mount as m

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# word: (attributes set, attributes cleared)
ATTRIBUTES = {
    "ro": (m.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, m.MOUNT_ATTR_RDONLY),
    "nosuid": (m.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, m.MOUNT_ATTR_NOSUID),
    "nodev": (m.MOUNT_ATTR_NODEV, 0),
    "dev": (0, m.MOUNT_ATTR_NODEV),
    "noexec": (m.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, m.MOUNT_ATTR_NOEXEC),
    "noatime": (m.MOUNT_ATTR_NOATIME, 0),
    "atime": (0, m.MOUNT_ATTR_NOATIME),
    "nodiratime": (m.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, m.MOUNT_ATTR_NODIRATIME),
    "relatime": (m.MOUNT_ATTR_RELATIME, m.MOUNT_ATTR__ATIME),
    "norelatime": (0, m.MOUNT_ATTR_RELATIME),
    "strictatime": (m.MOUNT_ATTR_STRICTATIME, 0),
    "nostrictatime": (0, m.MOUNT_ATTR_STRICTATIME),
    "nosymfollow": (m.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, m.MOUNT_ATTR_NOSYMFOLLOW),
}
PROPAGATION = {
    "private": m.MS_PRIVATE,
    "shared": m.MS_SHARED,
    "slave": m.MS_SLAVE,
    "unbindable": m.MS_UNBINDABLE,
    "rprivate": m.MS_PRIVATE | m.MS_REC,
    "rshared": m.MS_SHARED | m.MS_REC,
    "rslave": m.MS_SLAVE | m.MS_REC,
    "runbindable": m.MS_UNBINDABLE | m.MS_REC,
}
# Words that the file system itself takes as flags, by the name that fsconfig(2) knows.
FILESYSTEM_FLAGS = {
    "sync": "sync",
    "async": "async",
    "dirsync": "dirsync",
    "lazytime": "lazytime",
    "nolazytime": "nolazytime",
    "mand": "mand",
    "nomand": "nomand",
    "iversion": "iversion",
    "noiversion": "noiversion",
}
NOTHING = ("defaults", "silent", "loud", "acl", "noacl", "auto", "noauto", "user", "nouser", "_netdev", "nofail")


class MountOptions:
    """The options of one mount, sorted by whom they concern.

    Attributes:
        bind, recursive: `bind` or `rbind`.
        remount: change the mount that is there.
        attributes: of the mount (and `r…` ones of the tree), and its propagation.
        data: file system parameters in order.
        copy_up: `tmpcopyup`.
        idmap: "", "idmap" or "ridmap".
    """

    __slots__ = ("attributes", "bind", "copy_up", "data", "idmap", "recursive", "remount")

    def __init__(self) -> None:
        self.bind = False
        self.recursive = False
        self.remount = False
        self.attributes = Attributes()
        self.data: list[tuple[str, str | None]] = []
        self.copy_up = False
        self.idmap = ""


def parse(options: Sequence[str]) -> MountOptions:
    """Sort `options`; a word that is nobody else's is a parameter of the file system."""
    result = MountOptions()
    attributes = result.attributes
    propagation: list[int] = []
    for word in options:
        if word in ATTRIBUTES:
            _set(attributes, *ATTRIBUTES[word], tree=False)
        elif word in PROPAGATION:
            propagation.append(PROPAGATION[word])
        elif word[:1] == "r" and word[1:] in ATTRIBUTES:
            _set(attributes, *ATTRIBUTES[word[1:]], tree=True)
        elif word and not _switch(result, word) and word not in NOTHING:  # "": Podman 5.8 with --systemd=always
            key, equals, value = word.partition("=")
            result.data.append((FILESYSTEM_FLAGS.get(key, key), value if equals else None))
    attributes.propagation = tuple(propagation)
    return result


def _set(attributes: Attributes, add: int, remove: int, *, tree: bool) -> None:
    """The last word about an attribute wins, as with mount(8)."""
    if tree:
        attributes.set_tree = attributes.set_tree & ~remove | add
        attributes.clear_tree = attributes.clear_tree & ~add | remove
    else:
        attributes.set = attributes.set & ~remove | add
        attributes.clear = attributes.clear & ~add | remove


def _switch(result: MountOptions, word: str) -> bool:
    if word in ("bind", "rbind"):
        result.bind = True
        result.recursive = result.recursive or word == "rbind"
    elif word == "remount":
        result.remount = True
    elif word == "tmpcopyup":
        result.copy_up = True
    elif word in ("idmap", "ridmap"):
        result.idmap = word
    else:
        return False
    return True

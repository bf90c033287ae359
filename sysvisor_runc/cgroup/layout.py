"""Which cgroup hierarchies this machine mounts, and where the caller sits in each.

Two reads, no walk: mountinfo says what is mounted where, `cgroup` where the caller is. Knows nothing of containers;
`paths` places them. Must stay importable by every short command.
"""

from __future__ import annotations

import os

from sysvisor_runc.errors import CgroupError, reason
from sysvisor_runc.kernel import file

NAMED_PREFIX = "name="  # a v1 hierarchy without controllers: cgroup -o none,name=systemd
UNIFIED = "unified"  # the key of the cgroup2 hierarchy wherever controllers are keys

# The sub-cgroup that a system container gets for its own; its limits lie one level above, out of its reach.
LEAF_V1 = "syscont"
# On v2 the container owns its whole cgroup but not the limit files; processes must sit in a leaf of it
# (cgroups(7), "no internal processes"), and systemd's name for its own is as good as any.
LEAF_V2 = "init.scope"

# Words in the superblock options of a v1 mount that are no controllers (kernel: cgroup1_show_options).
_V1_OPTIONS = frozenset(("rw", "ro", "none", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "favordynmods"))
# Where distributions mount cgroups. A second mount of the same hierarchy elsewhere is someone's container.
_USUAL_PLACE = "/sys/fs/cgroup"


class Hierarchy:
    """One mounted cgroup hierarchy.

    Attributes:
        controllers: the v1 controllers mounted together, or `name=…`; empty for cgroup2, which lists its own in a file.
        mountpoint: where it is mounted, absolute.
        own: the caller's cgroup as an absolute path below `mountpoint`.
    """

    __slots__ = ("controllers", "mountpoint", "own")

    def __init__(self, controllers: tuple[str, ...], mountpoint: str, own: str) -> None:
        self.controllers = controllers
        self.mountpoint = mountpoint
        self.own = own

    def __repr__(self) -> str:
        return f"Hierarchy({','.join(self.controllers) or UNIFIED} on {self.mountpoint}, own {self.own})"


class Layout:
    """The machine's hierarchies.

    Attributes:
        kind: `v1`, `hybrid` (v1 controllers and a cgroup2 mount), `v2`, or `none`.
        v1: every v1 hierarchy, once each, in the order of mounting.
        unified: the cgroup2 hierarchy, if it is mounted.
    """

    __slots__ = ("kind", "unified", "v1")

    def __init__(self, v1: tuple[Hierarchy, ...], unified: Hierarchy | None) -> None:
        self.v1 = v1
        self.unified = unified
        if v1:
            self.kind = "hybrid" if unified else "v1"
        else:
            self.kind = "v2" if unified else "none"

    def by_controller(self) -> dict[str, Hierarchy]:
        """Controller (or `name=…`) → its hierarchy; those mounted together share one; cgroup2 under `unified`."""
        table = {controller: hierarchy for hierarchy in self.v1 for controller in hierarchy.controllers}
        if self.unified is not None:
            table[UNIFIED] = self.unified
        return table


def detect(procfd: int | None = None) -> Layout:
    """Read the layout as the calling process sees it; `procfd` is a directory fd of a procfs, `/proc` without one.

    Raises:
        CgroupError: procfs cannot be read.
    """
    prefix = "/proc/self/" if procfd is None else "self/"
    return parse(_slurp(prefix + "mountinfo", procfd), _slurp(prefix + "cgroup", procfd))


def _slurp(path: str, dirfd: int | None) -> bytes:
    try:
        return file.read(path, dirfd)
    except OSError as e:
        raise CgroupError(f"read {path}: {reason(e)}", hint="is procfs mounted on /proc?") from None


def parse(mountinfo: bytes, cgroup: bytes) -> Layout:
    """Build the layout from the contents of `/proc/self/mountinfo` and `/proc/self/cgroup` (proc(5))."""
    own = _own_cgroups(cgroup)
    found: dict[tuple[str, ...], Hierarchy] = {}
    for line in mountinfo.split(b"\n"):
        # A busy host has hundreds of mounts: only lines that can matter are taken apart.
        if b" - cgroup" not in line:
            continue
        left, _, right = os.fsdecode(line).partition(" - ")
        fields = left.split(" ")
        fstype, _, options = right.split(" ", 2)
        controllers = _controllers(options) if fstype == "cgroup" else ()
        if fstype not in ("cgroup", "cgroup2") or (fstype == "cgroup" and not controllers):
            continue
        root, mountpoint = _unescape(fields[3]), _unescape(fields[4])
        if controllers in found and not _preferred(mountpoint, found[controllers].mountpoint):
            continue
        path = own.get(controllers[0] if controllers else "", "/")
        found[controllers] = Hierarchy(controllers, mountpoint, _below(mountpoint, root, path))
    unified = found.pop((), None)
    return Layout(tuple(found.values()), unified)


def _own_cgroups(text: bytes) -> dict[str, str]:
    """Controller (`""` for cgroup2) → path, from lines such as `4:cpu,cpuacct:/user` (cgroups(7))."""
    table = {}
    for line in os.fsdecode(text).splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            table[name] = path.removesuffix(" (deleted)")
    return table


def _controllers(options: str) -> tuple[str, ...]:
    """What a v1 superblock carries; a named hierarchy answers to its name alone."""
    words = [w for w in options.split(",") if w not in _V1_OPTIONS and not w.startswith("release_agent=")]
    return tuple(words)


def _preferred(new: str, old: str) -> bool:
    """Whether `new` is the better of two mounts of one hierarchy: a usual place wins, then the first one seen."""
    return new.startswith(_USUAL_PLACE) and not old.startswith(_USUAL_PLACE)


def _below(mountpoint: str, root: str, path: str) -> str:
    """`path` of the hierarchy as seen through a mount of its subtree `root` (`/` but in containers without a cgroup
    namespace, whose runtimes bind a part of the host's hierarchy)."""
    if root != "/":
        # A root that climbs (`/../..`) or a path outside it cannot be reached through this mount: its top must do.
        inside = path == root or path.startswith(root + "/")
        path = path[len(root) :] if inside else ""
    if ".." in path.split("/"):
        path = ""  # the caller sits outside its own cgroup namespace (cgroup_namespaces(7))
    path = path.strip("/")
    return f"{mountpoint}/{path}" if path else mountpoint


def _unescape(field: str) -> str:
    """Undo mountinfo's octal escapes of blank, tab, newline and backslash."""
    if "\\" not in field:
        return field
    for octal, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(octal, char)
    return field

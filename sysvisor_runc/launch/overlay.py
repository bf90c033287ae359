"""Mount the layers of an overlay anew, ID-mapped, and have a mount of them look anew.

Imports kernel, errors, notes and plan values.
"""

from __future__ import annotations

import os

from sysvisor_runc import log
from sysvisor_runc.errors import LaunchError, StateError, reason
from sysvisor_runc.kernel import mount as m
from sysvisor_runc.kernel.prctl import capget, capset
from sysvisor_runc.kernel.statfs import OVERLAYFS_SUPER_MAGIC, fstatfs
from sysvisor_runc.kernel.syscall import syscall
from sysvisor_runc.launch.notes import note
from sysvisor_runc.launch.shelf import put, with_shelf
from sysvisor_runc.launch.userns import user_namespace

# Facts about overlayfs with ID-mapped layers (Linux 5.19, measured up to 6.18):
# * The overlay itself cannot be ID-mapped, its layers can. Upper and work must come from one mount, hence from one
#   ID-mapped clone of their common parent; with two the mount fails with EINVAL.
# * All that overlayfs does to the upper layer it does as whoever mounted it. That must be an id that the layer has: as
#   the host's root, whom the mapping does not know, the mount silently comes up read-only (EOVERFLOW on `work`). And it
#   must be privileged in the initial user namespace, for `trusted.overlay` attributes. So the helper takes the file
#   system ids of the container's root, and its capabilities again.
# * What ends on disk are the ids inside the container, and whiteouts of device 0:0, as without a user namespace. So the
#   client's commit, diff and export need to know nothing.
# * A mount caches the names that it has looked up, and does not see what another one of the same upper layer changes
#   below it. Configuring it anew, without a change, drops that cache (shrink_dcache_sb in reconfigure_super).

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.launch.undo import UndoStack
    from sysvisor_runc.plan.overlay import OverlayTree
    from sysvisor_runc.state.record import Record
    from sysvisor_runc.state.store import Entry

_FSPICK_CLOEXEC = 1
_FSPICK_EMPTY_PATH = 8
_FSCONFIG_CMD_RECONFIGURE = 7
_BASE = "base"
_FLAGS = m.MS_RDONLY | m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC  # as ST_* of statvfs(3)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def plan_work(tree: OverlayTree, entry: Entry, undo: UndoStack) -> None:
    """Choose the fresh work directory: beside the client's, under a name that nobody else has.

    Opening the tree makes it; from now on a launch that fails or is killed knows of it.
    """
    if tree.layers.upper:
        tree.work = f"{tree.layers.work.rstrip('/')}-sysvisor-{os.urandom(4).hex()}"
    note(entry, "overlay", tree.work)
    undo.push("overlay work directory", lambda: remove_work(tree.work))


def record_overlay(record: Record, tree: OverlayTree, overlay: int) -> None:
    """Store what later commands need to know."""
    record["overlayWork"] = tree.work
    record["overlayDevice"] = os.fstat(overlay).st_dev


def make_overlay_tree(tree: OverlayTree) -> int:
    """The overlay as a detached mount.

    Raises:
        LaunchError: its layers cannot be ID-mapped or mounted.
        OSError: a layer is gone.
    """
    if tree.work:
        os.mkdir(tree.work, 0o700)
    clones: dict[str, int] = {}
    userns = _user_namespace(tree)
    try:
        if tree.work:
            clones[_BASE] = _clone(tree, _parent(tree), userns)
        for number, layer in enumerate(tree.layers.lower + tree.layers.data):
            clones[str(number)] = _clone(tree, layer, userns)
        flags = os.statvfs(tree.path).f_flag & _FLAGS
        what = f"{tree.where}: mount the layers of {tree.path!r}"
        (overlay,) = with_shelf(what, lambda shelf: [_mount(tree, shelf, clones, flags)])
    finally:
        for fd in (userns, *clones.values()):
            os.close(fd)
    _verify(tree, overlay)
    return overlay


def remove_work(path: str) -> None:
    """Remove a work directory and what overlayfs has made in it; that it is gone already is fine.

    Raises:
        StateError: something stays.
    """
    if not path:
        return
    parent, name = os.path.split(path)
    try:
        fd = os.open(parent, _DIRECTORY)
        try:
            _remove(fd, name)
        finally:
            os.close(fd)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StateError(f"remove the work directory {path!r}: {reason(error)}") from error


def refresh(path: str, device: int | None = None) -> None:
    """Have the overlay at `path` look at its layers anew; nothing happens where there is none, or not on `device`."""
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if fstatfs(fd) != OVERLAYFS_SUPER_MAGIC or device not in (None, os.fstat(fd).st_dev):
            return
        context = syscall("fspick", fd, b"\0", _FSPICK_CLOEXEC | _FSPICK_EMPTY_PATH, operand=path)
        try:
            m.fsconfig(context, _FSCONFIG_CMD_RECONFIGURE)
        finally:
            os.close(context)
    except OSError as error:
        log.debug(f"refresh {path}: {error}")
    finally:
        os.close(fd)


def _user_namespace(tree: OverlayTree) -> int:
    if tree.userns:
        return os.open(tree.userns, os.O_RDONLY | os.O_CLOEXEC)
    return user_namespace(tree.uid_mappings, tree.gid_mappings)


def _parent(tree: OverlayTree) -> str:
    return os.path.commonpath([tree.layers.upper, tree.work])


def _clone(tree: OverlayTree, path: str, userns: int) -> int:
    """A detached, private, ID-mapped copy of the mount that `path` is on, with `path` as its root."""
    fd = m.open_tree(m.AT_FDCWD, path, m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC)
    try:
        private, flags = m.MS_PRIVATE, m.AT_EMPTY_PATH
        m.mount_setattr(fd, "", flags, attr_set=m.MOUNT_ATTR_IDMAP, userns_fd=userns, propagation=private)
    except OSError as error:
        os.close(fd)
        hint = "its file system does not support ID-mapped mounts" if error.errno == 22 else None  # EINVAL
        raise LaunchError(f"{tree.where}: id-map the layer {path!r}: {reason(error)}", hint=hint) from error
    return fd


def _mount(tree: OverlayTree, shelf: int, clones: dict[str, int], flags: int) -> int:
    """In the helper: layers are named by number, so that hundreds fit into the page that mount(2) takes."""
    for name, fd in clones.items():
        put(shelf, name, fd)
    os.mkdir("overlay")
    _become_owner(tree.owner)
    m.mount("overlay", "overlay", "overlay", flags, ",".join(_options(tree)))
    return m.open_tree(m.AT_FDCWD, "overlay", m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC)


def _options(tree: OverlayTree) -> list[str]:
    layers, count = tree.layers, len(tree.layers.lower)
    data = "".join(f"::{count + number}" for number in range(len(layers.data)))
    options = [f"lowerdir={':'.join(map(str, range(count)))}{data}", "index=off"]
    options += [key if value is None else f"{key}={value}" for key, value in layers.options]
    if tree.work:
        # Links have names without what must be escaped.
        for name, target in (("upper", layers.upper), ("work", tree.work)):
            os.symlink(os.path.join(_BASE, os.path.relpath(target, _parent(tree))), name)
            options.append(f"{name}dir={name}")
    return options


def _become_owner(owner: tuple[int, int]) -> None:
    """Make files as the container's root, with the host's capabilities."""
    _, permitted, inheritable = capget()
    os.setgroups([])
    syscall("setfsgid", owner[1])
    syscall("setfsuid", owner[0])  # takes those that are about files out of the effective set
    capset(permitted, permitted, inheritable)


def _verify(tree: OverlayTree, overlay: int) -> None:
    """It must be as writable as asked, and show what the client's mount shows."""
    problem = ""
    if tree.work and os.fstatvfs(overlay).f_flag & m.MS_RDONLY:
        problem = "the kernel made it read-only"
    fd = os.open(".", _DIRECTORY, dir_fd=overlay)
    try:
        if sorted(os.listdir(fd)) != sorted(os.listdir(tree.path)):
            problem = "it does not show the same files"
    finally:
        os.close(fd)
    if problem:
        os.close(overlay)
        raise LaunchError(
            f"{tree.where}: mount the layers of {tree.path!r}: {problem}",
            hint="the kernel's log may say more (dmesg); --uid-shift chown does without",
        )


def _remove(parent: int, name: str) -> None:
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (20, 40):  # ENOTDIR, ELOOP
            raise
        os.unlink(name, dir_fd=parent)
        return
    try:
        for entry in os.listdir(fd):
            _remove(fd, entry)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)

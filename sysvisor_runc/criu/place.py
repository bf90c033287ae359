"""Where criu finds what it restores a container on: the root file system, and all that leads out of the container,
attached to a shelf in a mount namespace that the command has for itself.

criu opens its sources by path, so the shelf lies where every user may walk: in a container with a user namespace criu
does so with the container's ids.
"""

from __future__ import annotations

import os
import stat

from sysvisor_runc.child import paths
from sysvisor_runc.child.mounts import BindMount, FilesystemMount, attach
from sysvisor_runc.child.nodes import MakeDevice, Symlink
from sysvisor_runc.child.served import ServedMount
from sysvisor_runc.criu.mounts import MASK, MountLine, mount_id, read, within
from sysvisor_runc.kernel import mount as m
from sysvisor_runc.kernel.namespaces import CLONE_NEWNS, unshare
from sysvisor_runc.launch.ids import on_host
from sysvisor_runc.plan.mounts import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysvisor_runc.plan.plan import Plan

# Any directory that every system has and that nothing of criu's is below.
_SHELVES = ("/mnt", "/media", "/srv", "/opt")
ROOT = "root"
# File systems that the host makes for a system container, and whose content no image has.
HANDED_IN = frozenset(("/dev",))


def widen(trees: Sequence[Tree]) -> list[str]:
    """Have the whole mount opened in which each tree of the host's lies; where in that it is.

    What a mount of the container's propagates to it criu copies from the source that it is handed, and may do so only
    where that shows no less of the file system: volumes and root file system that come from one mount are one group.
    """
    lines = {line.number: line for line in map(MountLine, read("/proc/self/mountinfo").splitlines())}
    return [_widened(tree, lines) if type(tree) is Tree else "" for tree in trees]


def _widened(tree: Tree, lines: dict[int, MountLine]) -> str:
    path = os.path.realpath(tree.path)
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return ""  # opening it will tell
    line = lines.get(mount_id("self", fd))
    os.close(fd)
    if line is None or not within(path, line.place):
        return ""
    # criu asks for each mount below by itself.
    tree.path, tree.recursive = line.place, False
    return path[len(line.place.rstrip("/")) :]


class Shelf:
    """Attributes: `path` of the shelf, `root` on it, `sources`: what criu asks for → where it lies."""

    def __init__(
        self, plan: Plan, opened: dict[int, int], served: dict[int, int], real: dict[str, str], below: list[str]
    ) -> None:
        """`opened` and `served` are the trees of the host and of sysvisor-fs, by their numbers in the plan.

        criu knows a mount by where it really is, which `real` says of a place in the plan. `below`: of `widen`.
        """
        self.path = next((path for path in _SHELVES if os.path.isdir(path)), "/tmp")
        self._root = opened[plan.child.rootfs_tree]
        self._base = f"{self.path}/{ROOT}"
        self.root = self._base + below[plan.child.rootfs_tree]
        self._operations = plan.child.operations
        self._console = plan.child.console is not None
        self._owner = on_host(plan.uid_mappings, 0), on_host(plan.gid_mappings, 0)
        self._trees: list[tuple[int, int, BindMount | ServedMount]] = []
        self.sources = {MASK: MASK}
        for number, operation in enumerate(plan.child.operations):
            if isinstance(operation, BindMount) and not operation.inside:
                self._trees.append((number, opened[operation.tree], operation))
                place = real.get(operation.destination, operation.destination)
                self.sources[place] = f"{self.path}/{number}{below[operation.tree]}"
            elif isinstance(operation, ServedMount) and operation.tree in served:
                self._trees.append((number, served[operation.tree], operation))
                self.sources[operation.destination] = f"{self.path}/{number}"
            elif isinstance(operation, MakeDevice) and operation.bind:
                self.sources[operation.path] = operation.path

    def furnish(self) -> None:
        """Build it, in a mount namespace where nobody else sees it. Raises OSError."""
        m.mount("sysvisor-runc", self.path, "tmpfs", m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC, "mode=755")
        os.mkdir(self._base, 0o755)
        self._attach(self._root, self._base)
        for number, tree, operation in self._trees:
            path = f"{self.path}/{number}"
            if stat.S_ISDIR(os.fstat(tree).st_mode):
                os.mkdir(path, 0o755)
            else:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
            operation.attributes.apply(tree, operation.destination)
            self._attach(tree, path)
            if operation.destination in HANDED_IN:
                self._fill(path, operation.destination)

    def _fill(self, path: str, place: str) -> None:
        """Put into a file system that the host has made anew what the container's first process puts there."""
        uid, gid = self._owner
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for operation in self._operations:
                whole: str = getattr(operation, "destination", "") or getattr(operation, "path", "")
                if not whole.startswith(place + "/") or isinstance(operation, MakeDevice):
                    continue
                name = whole.removeprefix(place)
                if isinstance(operation, Symlink):
                    parent, last = paths.open_parent(top, name)
                    os.symlink(operation.target, last, dir_fd=parent)
                    os.chown(last, uid, gid, dir_fd=parent, follow_symlinks=False)
                    os.close(parent)
                    continue
                directory = not isinstance(operation, BindMount) or os.path.isdir(operation.source)
                fd = (paths.make_directory if directory else paths.make_file)(top, name)
                os.chown(f"/proc/self/fd/{fd}", uid, gid)
                os.close(fd)
            if self._console:
                os.close(paths.make_file(top, "/console"))  # the terminal's other end is bound there
        finally:
            os.close(top)

    def remove(self) -> None:
        """Take it down again; what criu has restored has copies of its own."""
        m.umount2(self.path, m.MNT_DETACH)

    @staticmethod
    def _attach(tree: int, path: str) -> None:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            attach(tree, fd, path)
        finally:
            os.close(fd)


def enter_own_mount_namespace() -> None:
    """Leave the caller's mount namespace: nothing that is mounted from here on shows there, or outlives this command.

    The whole command, not only criu: criu mounts relative to the image directory, whose descriptor is ours.
    """
    unshare(CLONE_NEWNS)
    m.mount(None, "/", None, m.MS_SLAVE | m.MS_REC)


def make_mount_points(plan: Plan) -> dict[str, str]:
    """Make what is missing in the root file system, as a first launch would have: criu makes none.

    Also in a volume that another one is mounted in. Not in a tmpfs: its content is in the images. Returns where the
    places of the plan really are, once the links of the root file system are followed.

    Raises:
        OSError: the root file system cannot be written to.
    """
    root = os.open(plan.rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    real: dict[str, str] = {}
    volumes: dict[str, str] = {}
    try:
        for operation in plan.child.operations:
            place = getattr(operation, "destination", None) or getattr(operation, "path", None)
            if not place:
                continue
            top = max((top for top in real if place.startswith(top + "/")), key=len, default=None)
            if top is not None:
                real[place] = real[top] + place[len(top) :]
                if top in volumes and isinstance(operation, BindMount):
                    _make_inside(volumes[top], place[len(top) :], operation)
            elif isinstance(operation, FilesystemMount):
                real[place] = _made(root, paths.make_directory(root, place))
            elif isinstance(operation, BindMount):
                tmpfs = plan.trees[operation.tree].path == "tmpfs"
                directory = tmpfs or os.path.isdir(operation.source)
                if directory and not tmpfs and not operation.inside:
                    volumes[place] = operation.source
                real[place] = _made(root, (paths.make_directory if directory else paths.make_file)(root, place))
    finally:
        os.close(root)
    return real


def _make_inside(volume: str, place: str, operation: BindMount) -> None:
    """Make `place` in the volume, where it is missing, for what is mounted there."""
    root = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        make = paths.make_directory if os.path.isdir(operation.source) else paths.make_file
        os.close(make(root, place))
    finally:
        os.close(root)


def _made(root: int, fd: int) -> str:
    """Where below the root a mount point is; `fd` is closed."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}").removeprefix(os.readlink(f"/proc/self/fd/{root}"))
    finally:
        os.close(fd)

"""Make the tmpfs with device nodes that a plan asks for (`plan.nodes`). Imports kernel, child and plan values."""

from __future__ import annotations

import os

from sysvisor_runc.child.mounts import new_mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.plan.nodes import NodeTree


def make_node_tree(tree: NodeTree) -> int:
    """The file system as a detached mount. Raises OSError."""
    uid, gid = tree.owner
    owner = (("uid", str(uid)), ("gid", str(gid)))
    fd = new_mount("tmpfs", "tmpfs", (*tree.options, *owner), tree.where)
    try:
        for path, mode, major, minor, *ids in tree.nodes:
            _make_parents(fd, path, uid, gid)
            os.mknod(path, mode, os.makedev(major, minor), dir_fd=fd)
            os.chown(path, *ids, dir_fd=fd)
            os.chmod(path, mode & 0o7777, dir_fd=fd)  # mknod(2) heeds the umask
    except BaseException:
        os.close(fd)
        raise
    return fd


def _make_parents(fd: int, path: str, uid: int, gid: int) -> None:
    slash = path.find("/")
    while slash != -1:
        try:
            os.mkdir(path[:slash], 0o755, dir_fd=fd)
            os.chown(path[:slash], uid, gid, dir_fd=fd)
            os.chmod(path[:slash], 0o755, dir_fd=fd)
        except FileExistsError:
            pass
        slash = path.find("/", slash + 1)

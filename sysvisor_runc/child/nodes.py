"""Operations that make what is no mount in a root file system: device nodes, links, small files, placeholders.

As those of child.mounts they are values that describe themselves and execute on a `Rootfs`, and decide nothing. May
import kernel and child.
"""

from __future__ import annotations

import os
import stat

from sysvisor_runc.child import paths
from sysvisor_runc.child.mounts import attach, refuse_proc
from sysvisor_runc.kernel import mount as m

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.child.mounts import Rootfs


class MakeDevice:
    """Make a device node, or where a user namespace forbids that, show the host's node in its place."""

    __slots__ = ("bind", "gid", "kind", "major", "minor", "mode", "path", "uid")

    def __init__(
        self, path: str, kind: str, major: int, minor: int, mode: int, uid: int, gid: int, *, bind: bool
    ) -> None:
        self.path = path
        self.kind = kind
        self.major = major
        self.minor = minor
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.bind = bind

    def describe(self) -> str:
        if self.bind and self.kind != "p":
            return f"bind device {self.path}"
        number = "" if self.kind == "p" else f" {self.major}:{self.minor}"
        return f"mknod {self.path} {self.kind}{number} mode {self.mode:04o} owner {self.uid}:{self.gid}"

    def execute(self, rootfs: Rootfs) -> None:
        if self.bind and self.kind != "p":  # a fifo may be made anywhere
            self._bind(rootfs)
            return
        parent, name = paths.open_parent(rootfs.root, self.path)
        try:
            self._make(parent, name, rootfs.proc)
        finally:
            os.close(parent)

    def _make(self, parent: int, name: str, proc: int) -> None:
        """Make the node; what is there already stays if it is this very device (a rule of the runtime-spec)."""
        kind = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}[self.kind]
        number = 0 if self.kind == "p" else os.makedev(self.major, self.minor)
        try:
            os.mknod(name, kind | self.mode, number, dir_fd=parent)
        except FileExistsError:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_IFMT(status.st_mode) != kind or (self.kind != "p" and status.st_rdev != number):
                raise
        node = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            status = os.fstat(node)
            if stat.S_IFMT(status.st_mode) != kind or status.st_rdev != number:
                raise OSError(17, os.strerror(17), self.path)  # EEXIST: swapped since
            # Not by name: chmod(2) follows a link that somebody may have put there meanwhile, and to the host's files.
            os.chown(f"self/fd/{node}", self.uid, self.gid, dir_fd=proc)
            os.chmod(f"self/fd/{node}", self.mode, dir_fd=proc)
        finally:
            os.close(node)

    def _bind(self, rootfs: Rootfs) -> None:
        tree = m.open_tree(m.AT_FDCWD, self.path, m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC | m.AT_SYMLINK_NOFOLLOW)
        try:
            destination = paths.make_file(rootfs.root, self.path)
            try:
                refuse_proc(rootfs, destination, self.path)
                attach(tree, destination, self.path)
            finally:
                os.close(destination)
        finally:
            os.close(tree)


class Symlink:
    """Make a symbolic link; one that is there already stays as it is."""

    __slots__ = ("path", "replace", "target")

    def __init__(self, target: str, path: str, *, replace: bool = False) -> None:
        self.target = target
        self.path = path
        self.replace = replace

    def describe(self) -> str:
        return f"symlink {self.path} -> {self.target}"

    def execute(self, rootfs: Rootfs) -> None:
        parent, name = paths.open_parent(rootfs.root, self.path)
        try:
            if self.replace:
                try:
                    os.unlink(name, dir_fd=parent)
                except FileNotFoundError:
                    pass
            os.symlink(self.target, name, dir_fd=parent)
        except FileExistsError:
            pass
        finally:
            os.close(parent)


class WriteFile:
    """Write a small file, such as those under /run/host that tell an init about its container."""

    __slots__ = ("data", "mode", "path")

    def __init__(self, path: str, data: bytes, mode: int = 0o444) -> None:
        self.path = path
        self.data = data
        self.mode = mode

    def describe(self) -> str:
        return f"write {self.path} ({len(self.data)} bytes, mode {self.mode:04o})"

    def execute(self, rootfs: Rootfs) -> None:
        parent, name = paths.open_parent(rootfs.root, self.path)
        try:
            # What is there in its place goes: to open a fifo would block, to open a device may do things.
            try:
                os.unlink(name, dir_fd=parent)
            except FileNotFoundError:
                pass
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self.mode, dir_fd=parent)
        finally:
            os.close(parent)
        try:
            os.write(fd, self.data)
            os.fchmod(fd, self.mode)
        finally:
            os.close(fd)


class MakeNode:
    """Make an inaccessible placeholder of a kind (`f d p s c b`), as systemd keeps under /run/host/inaccessible."""

    __slots__ = ("kind", "path")

    def __init__(self, path: str, kind: str) -> None:
        self.path = path
        self.kind = kind

    def describe(self) -> str:
        return f"placeholder {self.path} ({self.kind})"

    def execute(self, rootfs: Rootfs) -> None:
        if self.kind == "d":
            os.close(paths.make_directory(rootfs.root, self.path, 0))
            return
        parent, name = paths.open_parent(rootfs.root, self.path)
        kinds = {"f": stat.S_IFREG, "p": stat.S_IFIFO, "s": stat.S_IFSOCK, "c": stat.S_IFCHR, "b": stat.S_IFBLK}
        kind = kinds[self.kind]
        try:
            os.mknod(name, kind, 0, dir_fd=parent)
        except (FileExistsError, PermissionError):
            pass  # device 0:0 of either kind may be refused in a user namespace: the other placeholders do
        finally:
            os.close(parent)

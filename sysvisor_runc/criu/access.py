"""Let a container's root read the images it is restored from, for as long as that takes.

criu opens them first as the host's root, which owns them, and once it is inside the user namespace with the container's
ids. Neither wider modes nor an ID-mapped mount serves both; an access control list does (acl(5)).
"""

from __future__ import annotations

import os
import stat

from sysvisor_runc.errors import SysvisorError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_XATTR = "system.posix_acl_access"
# include/uapi/linux/posix_acl_xattr.h: a u32 version, then for each entry a u16 tag, u16 permissions and a u32 id.
_VERSION, _NO_ID = 2, 0xFFFFFFFF
_USER_OBJ, _USER, _GROUP_OBJ, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_READ, _READ_SEARCH = 4, 5


class Readable:
    """A context in which user `uid` may read the files in a directory, and search it."""

    def __init__(self, directory: int, uid: int) -> None:
        self._directory = directory
        self._uid = uid
        self._changed: list[tuple[int, int, bytes | None]] = []

    def __enter__(self) -> None:
        """Raises SysvisorError: the file system has no access control lists."""
        try:
            self._allow(os.dup(self._directory), _READ_SEARCH)
            for name in os.listdir(self._directory):
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._directory)
                if stat.S_ISREG(os.fstat(fd).st_mode):
                    self._allow(fd, _READ)
                else:
                    os.close(fd)
        except OSError as error:
            self._undo()
            raise SysvisorError(
                f"let the container's root read the images: {reason(error)}",
                hint="copy them to a file system with access control lists, such as ext4 or tmpfs",
            ) from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._undo()

    def _allow(self, fd: int, permissions: int) -> None:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        self._changed.append((fd, mode, _own_list(fd)))
        os.setxattr(fd, _XATTR, _acl(mode, self._uid, permissions))

    def _undo(self) -> None:
        for fd, mode, before in self._changed:
            try:
                if before is not None:
                    os.setxattr(fd, _XATTR, before)
                else:
                    os.removexattr(fd, _XATTR)
                    os.fchmod(fd, mode)  # whose group bits the list's mask has taken
            except OSError:
                pass  # removed by criu, or there was no list to remove
            os.close(fd)
        self._changed = []


def _own_list(fd: int) -> bytes | None:
    """The list that the administrator has given a file; None: none."""
    try:
        return os.getxattr(fd, _XATTR)
    except OSError:
        return None


def _acl(mode: int, uid: int, permissions: int) -> bytes:
    """The list that says what `mode` says, and `permissions` for `uid`."""
    group = mode >> 3 & 7
    entries = (
        (_USER_OBJ, mode >> 6 & 7, _NO_ID),
        (_USER, permissions, uid),
        (_GROUP_OBJ, group, _NO_ID),
        (_MASK, group | permissions, _NO_ID),
        (_OTHER, mode & 7, _NO_ID),
    )
    return _VERSION.to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + allowed.to_bytes(2, "little") + number.to_bytes(4, "little")
        for tag, allowed, number in entries
    )

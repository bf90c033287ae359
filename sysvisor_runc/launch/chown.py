"""Shift the owners of a rootfs into the container's range, for `--uid-shift chown`: what an ID-mapped mount avoids."""

from __future__ import annotations

import os
import stat

from sysvisor_runc.errors import LaunchError, reason
from sysvisor_runc.kernel.mount import AT_EMPTY_PATH
from sysvisor_runc.kernel.openat2 import RESOLVE_NO_XDEV, openat2
from sysvisor_runc.kernel.syscall import syscall
from sysvisor_runc.launch.interrupt import check

_EXDEV = 18
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def chown_tree(path: str, ids: tuple[int, int, int]) -> None:
    """Add the container's offset to every owner below `path` that lies in 0 to size; run again it changes nothing.

    Nothing that is mounted below is touched, be it a part of the same file system; links are never followed, and set-id
    bits, which chown(2) clears, are put back.

    Raises:
        LaunchError: a file cannot be changed.
    """
    try:
        top = os.open(path, _DIRECTORY)
        try:
            _chown_directory(top, ids)
            _shift(top, ids)
        finally:
            os.close(top)
    except OSError as error:
        raise LaunchError(f"chown {path!r} to the container's ids: {reason(error)}") from error


def _chown_directory(directory: int, ids: tuple[int, int, int]) -> None:
    check()
    for name in os.listdir(directory):
        try:
            file = openat2(directory, name, os.O_PATH | os.O_NOFOLLOW, resolve=RESOLVE_NO_XDEV)
        except OSError as error:
            if error.errno == _EXDEV:
                continue
            raise
        try:
            if stat.S_ISDIR(os.fstat(file).st_mode):
                inner = os.open(".", _DIRECTORY, dir_fd=file)
                try:
                    _chown_directory(inner, ids)
                finally:
                    os.close(inner)
            _shift(file, ids)
        finally:
            os.close(file)


def _shift(file: int, ids: tuple[int, int, int]) -> None:
    """By descriptor, never by name: what a name leads to may change under us, and chmod(2) would follow a link."""
    status = os.fstat(file)
    uid, gid, size = ids
    new_uid = status.st_uid + uid if status.st_uid < size else -1
    new_gid = status.st_gid + gid if status.st_gid < size else -1
    if new_uid == -1 and new_gid == -1:
        return
    syscall("fchownat", file, b"\0", new_uid, new_gid, AT_EMPTY_PATH)
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISLNK(status.st_mode):
        os.chmod(f"/proc/self/fd/{file}", stat.S_IMODE(status.st_mode))

"""Shift the owners of a rootfs into the container's range, for `--uid-shift chown`: what an ID-mapped mount avoids."""

from __future__ import annotations

import os
import stat

from sysvisor_runc.errors import LaunchError, reason

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def chown_tree(path: str, ids: tuple[int, int, int]) -> None:
    """Add the container's offset to every owner below `path` that lies in 0 to size; run again it changes nothing.

    Only one file system is walked, links are never followed, and set-id bits, which chown(2) clears, are put back.

    Raises:
        LaunchError: a file cannot be changed.
    """
    try:
        top = os.open(path, _DIRECTORY)
        try:
            _chown_directory(top, os.fstat(top).st_dev, ids)
            _shift(".", os.fstat(top), top, ids)
        finally:
            os.close(top)
    except OSError as error:
        raise LaunchError(f"chown {path!r} to the container's ids: {reason(error)}") from error


def _chown_directory(directory: int, device: int, ids: tuple[int, int, int]) -> None:
    for name in os.listdir(directory):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if status.st_dev != device:
            continue
        if stat.S_ISDIR(status.st_mode):
            inner = os.open(name, _DIRECTORY, dir_fd=directory)
            try:
                _chown_directory(inner, device, ids)
            finally:
                os.close(inner)
        _shift(name, status, directory, ids)


def _shift(name: str, status: os.stat_result, directory: int, ids: tuple[int, int, int]) -> None:
    uid, gid, size = ids
    new_uid = status.st_uid + uid if status.st_uid < size else -1
    new_gid = status.st_gid + gid if status.st_gid < size else -1
    if new_uid == -1 and new_gid == -1:
        return
    os.chown(name, new_uid, new_gid, dir_fd=directory, follow_symlinks=False)
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISLNK(status.st_mode):
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=directory)

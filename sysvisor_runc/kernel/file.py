"""Files that the kernel makes up: those of procfs, sysfs and cgroupfs.

A value is written by one write(2). A file is read until it ends: its size is told as 0, and a part may be a page.
Nothing is ever created.
"""

from __future__ import annotations

import os

_CHUNK = 1 << 16


def read(path: str, dirfd: int | None = None) -> bytes:
    """The whole file at `path`, relative to the directory `dirfd` if there is one. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dirfd)
    try:
        return rest(fd)
    finally:
        os.close(fd)


def rest(fd: int) -> bytes:
    """What is left to read in an open file or a pipe. Raises OSError."""
    parts = []
    while part := os.read(fd, _CHUNK):
        parts.append(part)
    return b"".join(parts)


def write(path: str, value: str, dirfd: int | None = None) -> None:
    """Write `value` to the file at `path`, which is no symbolic link. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dirfd)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)

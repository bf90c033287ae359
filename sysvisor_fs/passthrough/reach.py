"""One entry of procfs or sysfs, reached from the descriptor of an instance. Raises OSError as the kernel does."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from sysvisor_fs.node import DT_DIR, DT_LNK, DT_REG, Attributes

if TYPE_CHECKING:
    from sysvisor_fs.node import Container

_CHUNK = 1 << 16
LARGEST = 1 << 26  # bytes of one file


def component(name: str) -> str:
    """A name that stays in its directory.

    Raises:
        FileNotFoundError: it would not.
    """
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return name


def attributes(root: int, path: str) -> Attributes:
    """As lstat(2)."""
    found = os.stat(path, dir_fd=root, follow_symlinks=False)
    return Attributes(found.st_mode, found.st_size, found.st_uid, found.st_gid, found.st_nlink)


def names(root: int, path: str) -> list[tuple[str, int]]:
    """The entries of a directory with their d_type."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
    try:
        with os.scandir(fd) as entries:
            return [(entry.name, _d_type(entry)) for entry in entries]
    finally:
        os.close(fd)


def _d_type(entry: os.DirEntry[str]) -> int:
    if entry.is_symlink():
        return DT_LNK
    return DT_DIR if entry.is_dir(follow_symlinks=False) else DT_REG


def read(root: int, path: str) -> bytes:
    """A file's whole content."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root)
    try:
        data = os.read(fd, _CHUNK)
        if len(data) < 2048:
            return data  # a short file comes at one go
        parts = [data]
        while data and len(parts) * _CHUNK <= LARGEST:
            data = os.read(fd, _CHUNK)
            parts.append(data)
        return b"".join(parts)
    finally:
        os.close(fd)


def write(root: int, path: str, data: bytes) -> None:
    """One value in one write(2)."""
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def readable(found: Attributes, container: Container) -> Attributes:
    """A file that may be read only: the container's root's, unless it is closed to others.

    That one stays the host's root's, whom a container does not have: its own root could open what belongs to it.
    """
    mode = found.mode & ~0o222
    if not mode & stat.S_IROTH:
        return found._replace(mode=mode)
    return found._replace(mode=mode, uid=container.root_uid, gid=container.root_gid)


def is_directory(found: Attributes) -> bool:
    """Whether it is one."""
    return stat.S_ISDIR(found.mode)


def is_link(found: Attributes) -> bool:
    """Whether it is a symbolic one."""
    return stat.S_ISLNK(found.mode)

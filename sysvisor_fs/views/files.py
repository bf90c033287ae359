"""Reading the kernel's own text files, over and over: descriptors are kept, since opening costs more than reading.

A kept descriptor is closed when nobody refers to it any more, so one thread may throw it out while another reads.
"""

from __future__ import annotations

import errno
import os
import time

MOST = 512  # descriptors; the process may have some thousands
_CHUNK = 1 << 16


class _Kept:
    """An open file."""

    __slots__ = ("fd",)

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


# Oldest first: whoever uses an entry takes it out and puts it back behind. Both are atomic, so no lock is needed.
_kept: dict[str, _Kept] = {}
_host: dict[str, tuple[float, bytes]] = {}


def read(path: str) -> bytes:
    """The whole file. Raises OSError."""
    kept = _kept.pop(path, None)
    if kept is not None:
        try:
            data = _whole(kept.fd)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise  # else: that cgroup is gone; there may be another of the same name
        else:
            _kept[path] = kept
            return data
    kept = _Kept(path)
    data = _whole(kept.fd)
    _keep(path, kept)
    return data


def once(path: str) -> bytes:
    """A short file that is looked at now and then: keeping its descriptor would cost another one. Else nothing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, _CHUNK)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _whole(fd: int) -> bytes:
    data = os.pread(fd, _CHUNK, 0)
    # What is made at one go comes at one go; a file of records may stop at one, near a page's end.
    if len(data) > 3500:
        while part := os.pread(fd, _CHUNK, len(data)):
            data += part
    return data


def _keep(path: str, kept: _Kept) -> None:
    _kept[path] = kept
    while len(_kept) > MOST:
        try:
            del _kept[next(iter(_kept))]
        except (KeyError, StopIteration, RuntimeError):
            return  # another thread was quicker


def read_or_none(path: str) -> bytes | None:
    """As `read`; None where the file or its cgroup is not there, or the kernel does not support it."""
    try:
        return read(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP, errno.ENOTDIR):
            return None
        raise


def number(path: str) -> int | None:
    """The one number in a file; None where there is none or it says `max`."""
    data = read_or_none(path)
    try:
        return int(data) if data is not None else None
    except ValueError:
        return None


def table(data: bytes) -> dict[bytes, int]:
    """Lines of a word and a number, as memory.stat and cpu.stat have them."""
    words = data.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=False))


def host(path: str, age: float) -> bytes:
    """A file of the host, at most `age` seconds old: what does not depend on the container is read once for many."""
    now = time.monotonic()
    known = _host.get(path)
    if known is not None and now - known[0] <= age:
        return known[1]
    data = read(path)
    _host[path] = now, data
    return data

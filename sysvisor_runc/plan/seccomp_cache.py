"""Compiled filters, and the cache file of one: its layout and how it is read. Written by `plan.seccomp_compile`."""

from __future__ import annotations

import os
import stat
import struct
from _blake2 import blake2b

# SECCOMP_FILTER_FLAG_NEW_LISTENER of <linux/seccomp.h>, without loading kernel.seccomp for one bit.
_NEW_LISTENER = 1 << 3

_SIZE_MAX = 256 * 1024


class Filter:
    """What the child loads, and where the listener goes.

    Attributes:
        bpf: an array of struct sock_filter for SECCOMP_SET_MODE_FILTER.
        flags: SECCOMP_FILTER_FLAG_* bits to load it with.
        notify: some rule has SCMP_ACT_NOTIFY: loading gives a listener, which goes to `listener_path`. The loader
            must tell its number with write(2), the one call that no profile may hand to the agent.
        listener_path, listener_metadata: as in the profile; empty where `notify` is false.
        may_fork: clone(2) as fork(2) makes it is allowed for sure.
        notes: remarks for the debug log, such as the system calls that were not known.
    """

    __slots__ = ("bpf", "flags", "listener_metadata", "listener_path", "may_fork", "notes", "notify")

    def __init__(self, bpf: bytes, flags: int, notes: tuple[str, ...]) -> None:
        self.bpf = bpf
        self.flags = flags
        self.notes = notes
        self.notify = bool(flags & _NEW_LISTENER)
        self.may_fork = False
        self.listener_path = ""
        self.listener_metadata = ""


class Library:
    """Which libseccomp compiled a filter: its path, and what stat(2) said of it then."""

    __slots__ = ("identity", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        result = os.stat(path)
        self.identity = (result.st_dev, result.st_ino, result.st_size, result.st_mtime_ns)


class CacheEntry:
    """A cache file `<cache_dir>/<key in hex>`, mode 0600, integers little-endian.

    offset  size  what
         0     8  MAGIC
         8    32  blake2b of all that follows: a torn or damaged file is no hit
        40    32  the key again: a file moved to another name is no hit
        72     4  SECCOMP_FILTER_FLAG_* bits
        76    12  lengths of path, notes and BPF
        88    32  device, inode, size and mtime of the library that compiled it
       120     …  path of that library, notes (one per line), BPF
    """

    MAGIC = b"svseccmp"
    HEAD = struct.Struct("<32sIIII4Q")
    START = 40


def cached(entry: str, key: bytes) -> Filter | None:
    """The filter in the cache file `entry`, if that is sound, for `key`, and made by the library that is there now."""
    try:
        data = _read_owned(entry)
        if data is None or not data.startswith(CacheEntry.MAGIC):
            return None
        body = memoryview(data)[CacheEntry.START :]
        if blake2b(body, digest_size=32).digest() != data[len(CacheEntry.MAGIC) : CacheEntry.START]:
            return None
        stored_key, flags, path_size, notes_size, bpf_size, *identity = CacheEntry.HEAD.unpack_from(body)
        start = CacheEntry.START + CacheEntry.HEAD.size
        path = os.fsdecode(data[start : start + path_size])
        if stored_key != key or Library(path).identity != tuple(identity):
            return None
    except (OSError, struct.error, ValueError):
        return None  # whatever is wrong with the cache, compiling anew cures it
    notes = data[start + path_size : start + path_size + notes_size].decode()
    bpf = data[start + path_size + notes_size :]
    return Filter(bpf, flags, tuple(notes.splitlines())) if len(bpf) == bpf_size else None


def _read_owned(path: str) -> bytes | None:
    """The content of the regular file `path`, None unless it is ours and nobody else can write it."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o022 or status.st_uid != os.geteuid():
            return None
        return os.read(fd, _SIZE_MAX) if status.st_size < _SIZE_MAX else None
    finally:
        os.close(fd)

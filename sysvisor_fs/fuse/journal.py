"""Requests that were read and not answered, in memory that outlives the daemon.

A request that a dead daemon had read is never answered, and its reader would end in an uninterruptible sleep. So the
buffers that requests are read into are a memory file, which the holder keeps; a successor finds in it what it has to
answer. No lock: a slot belongs to whoever took it, and is taken on the FUSE thread only.
"""

from __future__ import annotations

import mmap
import os
import struct
import time

from sysvisor_fs.fuse.protocol import IN_HEADER, READ_BUFFER

SLOTS = 1024
_MAGIC = 0x53564A31  # "SVJ1"

# Page 0: magic, slots; busy_since (CLOCK_MONOTONIC in ns, 0 when idle), its connection, its request; beats.
_HEAD = struct.Struct("<II")
_BUSY = struct.Struct("<QQQ")
_BUSY_AT = 64
_PAGE = 4096
# A slot: which connection it was read from; 1 when a write has been carried out and only its answer is missing; how
# many daemons have tried to answer it again; then the request. Its `len` is what says that there is one: the kernel
# writes it, and the answer clears it.
_SLOT_HEAD = struct.Struct("<QBB6x")
_STRIDE = 64 + READ_BUFFER
_DATA = 64
_ZERO = bytes(4)


class Journal:
    """The slots.

    Attributes:
        fd: the memory file, for the holder.
        suspect: connection and `unique` of the request that the last daemon died with; zeros for none.
        free: numbers of the slots that hold nothing; the most recently freed is taken first, as it is in the cache.
    """

    def __init__(self, fd: int = -1) -> None:
        size = _PAGE + SLOTS * _STRIDE
        fresh = fd < 0
        if fresh:
            fd = os.memfd_create("sysvisor-fs-journal", os.MFD_CLOEXEC)
            os.ftruncate(fd, size)
        self.fd = fd
        self._map = mmap.mmap(fd, size)
        self._view = memoryview(self._map)
        if fresh:
            _HEAD.pack_into(self._map, 0, _MAGIC, SLOTS)
        elif _HEAD.unpack_from(self._map) != (_MAGIC, SLOTS):
            raise ValueError("a journal of another version")
        # What a predecessor was busy with when it died.
        self.suspect: tuple[int, int] = _BUSY.unpack_from(self._map, _BUSY_AT)[1:]
        self.idle()
        self.buffers = [self._view[at + _DATA : at + _STRIDE] for at in self._offsets()]
        self.vectors = [[buffer] for buffer in self.buffers]  # as readv(2) wants them, made once
        self.free = [slot for slot in range(SLOTS - 1, -1, -1) if not self.holds(slot)]

    @staticmethod
    def _offsets() -> range:
        return range(_PAGE, _PAGE + SLOTS * _STRIDE, _STRIDE)

    def holds(self, slot: int) -> bool:
        """Whether a request in it awaits its answer."""
        at = _PAGE + slot * _STRIDE
        return self._map[at + _DATA : at + _DATA + 4] != _ZERO

    def claim(self, slot: int, connection: int) -> None:
        """Say that the next request in the slot will be of `connection`. Before it is read."""
        _SLOT_HEAD.pack_into(self._map, _PAGE + slot * _STRIDE, connection, 0, 0)

    def owner(self, slot: int) -> tuple[int, bool]:
        """The connection of the request in it, and whether it has been carried out."""
        connection, done, _ = _SLOT_HEAD.unpack_from(self._map, _PAGE + slot * _STRIDE)
        return connection, bool(done)

    def attempt(self, slot: int) -> int:
        """Another daemon tries to answer it; how many have, this one included."""
        at = _PAGE + slot * _STRIDE + 9
        self._map[at] = min(self._map[at] + 1, 255)
        return self._map[at]

    def carried_out(self, slot: int) -> None:
        """A successor shall only repeat the answer."""
        self._map[_PAGE + slot * _STRIDE + 8] = 1

    def clear(self, slot: int) -> None:
        """It is answered. The slot stays with whoever has it."""
        at = _PAGE + slot * _STRIDE + _DATA
        self._map[at : at + 4] = _ZERO

    def release(self, slot: int) -> None:
        """It is answered, and the slot free."""
        self.clear(slot)
        self.free.append(slot)

    def outstanding(self) -> list[int]:
        """The slots that hold a request, the oldest first as the kernel counts them."""
        held = [slot for slot in range(SLOTS) if self.holds(slot)]
        return sorted(held, key=lambda slot: int(IN_HEADER.unpack_from(self.buffers[slot])[2]) & (1 << 63) - 1)

    def busy(self, connection: int, unique: int) -> int:
        """The FUSE thread begins with a request, now: who watches over us looks at how long ago that was."""
        now = time.monotonic_ns()
        _BUSY.pack_into(self._map, _BUSY_AT, now, connection, unique)
        return now

    def idle(self) -> None:
        """It is done with it."""
        _BUSY.pack_into(self._map, _BUSY_AT, 0, 0, 0)

    def close(self) -> None:
        """Forget the memory; the file stays the holder's."""
        self.vectors.clear()
        for buffer in self.buffers:
            buffer.release()
        self._view.release()
        self._map.close()
        os.close(self.fd)


def read_busy(fd: int) -> tuple[int, int, int]:
    """`(since, connection, unique)` of a journal that belongs to another process; since 0 is idle."""
    since, connection, unique = _BUSY.unpack(os.pread(fd, _BUSY.size, _BUSY_AT))
    return since, connection, unique

"""Open files: what a reader has been told about their length, and who polls them, in memory that outlives the daemon.

A handle is a row of a table in a memory file that the holder keeps. The content that a reader has not fetched yet is
not in there: a successor computes it anew and cuts it to the length that the reader knows.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections import OrderedDict

ROWS = 65536
PER_CONNECTION = 4096  # more open files of one container work too, but remember nothing
HELD = 1 << 20  # bytes of content not fetched yet that one connection may have with us

_HEAD = struct.Struct("<II")  # magic, rows ever used
_MAGIC = 0x53564831  # "SVH1"
_ROW = struct.Struct("<QQQII")  # connection (0: free), nodeid, kh of its poller, length, generation
_FIRST = 64
_CONNECTION = struct.Struct("<Q")


class Row:
    """What is known of an open file; see the fields of the table."""

    __slots__ = ("connection", "kh", "length", "nodeid")

    def __init__(self, connection: int, nodeid: int, kh: int, length: int) -> None:
        self.connection = connection
        self.nodeid = nodeid
        self.kh = kh
        self.length = length


class Handles:
    """The table. A handle is `generation << 32 | row + 1`; 0 is one that was not entered."""

    def __init__(self, fd: int = -1) -> None:
        size = _FIRST + ROWS * _ROW.size
        fresh = fd < 0
        if fresh:
            fd = os.memfd_create("sysvisor-fs-handles", os.MFD_CLOEXEC)
            os.ftruncate(fd, size)
        self.fd = fd
        self._map = mmap.mmap(fd, size)
        if fresh:
            _HEAD.pack_into(self._map, 0, _MAGIC, 0)
        magic, self._used = _HEAD.unpack_from(self._map)
        if magic != _MAGIC:
            raise ValueError("a table of handles of another version")
        self._free: list[int] = []
        self._count: dict[int, int] = {}
        self._held: dict[int, OrderedDict[int, bytes]] = {}
        self._held_size: dict[int, int] = {}
        for row in range(self._used):
            connection = _CONNECTION.unpack_from(self._map, _FIRST + row * _ROW.size)[0]
            if connection:
                self._count[connection] = self._count.get(connection, 0) + 1
            else:
                self._free.append(row)

    def open(self, connection: int, nodeid: int) -> int:
        """A new handle; 0 where the connection has its share."""
        count = self._count.get(connection, 0)
        if count >= PER_CONNECTION:
            return 0
        if self._free:
            row = self._free.pop()
        elif self._used < ROWS:
            row = self._used
            self._used += 1
            _HEAD.pack_into(self._map, 0, _MAGIC, self._used)
        else:
            return 0
        at = _FIRST + row * _ROW.size
        generation: int = (_ROW.unpack_from(self._map, at)[4] + 1) & 0x7FFFFFFF
        _ROW.pack_into(self._map, at, connection, nodeid, 0, 0, generation)
        self._count[connection] = count + 1
        return generation << 32 | row + 1

    def _at(self, handle: int) -> int:
        """Where its row is; -1 for one that is not open."""
        row = (handle & 0xFFFFFFFF) - 1
        if not 0 <= row < self._used:
            return -1
        at = _FIRST + row * _ROW.size
        connection, _, _, _, generation = _ROW.unpack_from(self._map, at)
        return at if connection and generation == handle >> 32 else -1

    def get(self, connection: int, handle: int) -> Row | None:
        """Its row, if it is open on this connection."""
        at = self._at(handle)
        if at < 0:
            return None
        owner, nodeid, kh, length, _ = _ROW.unpack_from(self._map, at)
        return Row(owner, nodeid, kh, length) if owner == connection else None

    def set_length(self, handle: int, length: int) -> None:
        """What the reader now takes for the file's length."""
        at = self._at(handle)
        if at >= 0:
            self._map[at + 24 : at + 28] = length.to_bytes(4, "little")

    def set_poller(self, handle: int, kh: int) -> None:
        """The kernel's name of whom to wake; 0 for nobody."""
        at = self._at(handle)
        if at >= 0:
            self._map[at + 16 : at + 24] = kh.to_bytes(8, "little")

    def close(self, connection: int, handle: int) -> None:
        """It is released."""
        at = self._at(handle)
        if at < 0 or _CONNECTION.unpack_from(self._map, at)[0] != connection:
            return
        self._map[at : at + 8] = bytes(8)
        self._free.append((at - _FIRST) // _ROW.size)
        self._count[connection] -= 1
        self.drop(connection, handle)

    def pollers(self) -> list[tuple[int, int]]:
        """`(connection, kh)` of all that a dead daemon can no longer wake."""
        rows = (_ROW.unpack_from(self._map, _FIRST + row * _ROW.size) for row in range(self._used))
        return [(row[0], row[2]) for row in rows if row[0] and row[2]]

    def forget(self, connection: int) -> None:
        """The connection is over."""
        for row in range(self._used):
            at = _FIRST + row * _ROW.size
            if _CONNECTION.unpack_from(self._map, at)[0] == connection:
                self._map[at : at + 8] = bytes(8)
                self._free.append(row)
        self._count.pop(connection, None)
        self._held.pop(connection, None)
        self._held_size.pop(connection, None)

    # --- content that is yet to be fetched ------------------------------------------------------------------------

    def hold(self, connection: int, handle: int, content: bytes) -> None:
        """Keep a snapshot; the oldest of this connection go where they are too many."""
        held = self._held.setdefault(connection, OrderedDict())
        self.drop(connection, handle)
        held[handle] = content
        total = self._held_size.get(connection, 0) + len(content)
        while total > HELD and len(held) > 1:
            total -= len(held.popitem(last=False)[1])
        self._held_size[connection] = total

    def held(self, connection: int, handle: int) -> bytes | None:
        """The snapshot, if it is still there."""
        of_connection = self._held.get(connection)
        return None if of_connection is None else of_connection.get(handle)

    def drop(self, connection: int, handle: int) -> None:
        """The snapshot has been fetched."""
        of_connection = self._held.get(connection)
        if of_connection and (content := of_connection.pop(handle, None)) is not None:
            self._held_size[connection] -= len(content)

    def shut(self) -> None:
        """Forget the memory; the file stays the holder's."""
        self._map.close()
        os.close(self.fd)

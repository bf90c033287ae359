"""What a container has written to its terminal, on disk: bounded, in files that are put aside in turn.

    ID/console.log      the newest output; console.log.1, .2, .3 what came before
A file is a sequence of pieces: when it was read (u64, nanoseconds since the epoch), how many bytes came before it
(u64), its length (u32), all little-endian, and the bytes as they are.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = "console.log"
OLD = 3
# Of each file: the state root lies in memory.
BOUND = 256 * 1024
_HEAD = 20
_PIECE_MAX = 1 << 20
_LOST = b"\r\n[sysvisor-runc: %d bytes of output could not be kept]\r\n"


class ConsoleLog:
    """The writing end.

    Attributes:
        position: how many bytes the container has written so far, kept or not.
        lost: how many could not be kept since the last one that could.
    """

    __slots__ = ("_bound", "_dirfd", "_fd", "_size", "lost", "position")

    def __init__(self, dirfd: int, *, bound: int = BOUND) -> None:
        """Continue the log in a container's directory, `dirfd`, which becomes its own. Never fails."""
        self._bound = bound
        self._dirfd = dirfd
        self._fd = -1
        self._size = 0
        self.lost = 0
        self.position = 0
        for _, position, data in read(dirfd):
            self.position = position + len(data)

    def write(self, data: bytes) -> None:
        """Keep `data`, if there is room for it. Never fails, and never waits for anything but the disk."""
        if self.lost:
            note = _LOST % self.lost
            if not self._append(note):
                self.lost += len(data)
                self.position += len(data)
                return
            self.lost = 0
        if not self._append(data):
            self.lost += len(data)
        self.position += len(data)

    def close(self) -> None:
        for fd in (self._fd, self._dirfd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._dirfd = -1

    def _append(self, data: bytes) -> bool:
        piece = b"".join(
            (
                time.time_ns().to_bytes(8, "little"),
                self.position.to_bytes(8, "little"),
                len(data).to_bytes(4, "little"),
                data,
            )
        )
        try:
            if self._size and self._size + len(piece) > self._bound:
                self._put_aside()
            if self._fd < 0:
                flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
                self._fd = os.open(FILE, flags, 0o600, dir_fd=self._dirfd)
                self._size = _cut_off(self._fd)
            written = os.write(self._fd, piece)
            if written < len(piece):
                os.ftruncate(self._fd, self._size)
                return False
            self._size += written
        except OSError:
            return False
        return True

    def _put_aside(self) -> None:
        for number in range(OLD, 0, -1):
            older, newer = f"{FILE}.{number}", f"{FILE}.{number - 1}" if number > 1 else FILE
            try:
                os.rename(newer, older, src_dir_fd=self._dirfd, dst_dir_fd=self._dirfd)
            except FileNotFoundError:
                pass
        os.close(self._fd)
        self._fd = -1
        self._size = 0


def _cut_off(fd: int) -> int:
    """Cut off a piece that a crash has cut short, behind which nothing could be read; the size that is left."""
    size, end = os.fstat(fd).st_size, 0
    while len(head := os.pread(fd, _HEAD, end)) == _HEAD:
        length = int.from_bytes(head[16:], "little")
        if not 0 < length <= _PIECE_MAX or end + _HEAD + length > size:
            break
        end += _HEAD + length
    if end < size:
        os.ftruncate(fd, end)
    return end


def read(dirfd: int) -> Iterator[tuple[int, int, bytes]]:
    """The kept output, oldest first: when, its position, the bytes. Damaged ends of files are left out."""
    names = [f"{FILE}.{number}" for number in range(OLD, 0, -1)] + [FILE]
    opened = []
    for name in reversed(names):  # the newest first: what is put aside meanwhile is not read twice
        try:
            opened.append(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dirfd))
        except OSError:
            continue
    end = -1
    for fd in reversed(opened):
        with open(fd, "rb") as file:
            while len(head := file.read(_HEAD)) == _HEAD:
                position = int.from_bytes(head[8:16], "little")
                length = int.from_bytes(head[16:], "little")
                data = file.read(length) if length <= _PIECE_MAX else b""
                if len(data) < length or not length:
                    break
                if position >= end:
                    end = position
                    yield int.from_bytes(head[:8], "little"), position, data


def exists(dirfd: int) -> bool:
    """Whether anything has been kept."""
    try:
        os.stat(FILE, dir_fd=dirfd, follow_symlinks=False)
    except OSError:
        return False
    return True

"""The child's side of the launch conversation: framed messages over two pipes. May import nothing of ours.

A message is one byte of kind, four of length, and the payload. Descriptors are not sent: the host takes them out of the
child with pidfd_getfd(2), or where it may not, child.late carries them.
"""

from __future__ import annotations

import os

# From the host.
GO = b"G"
GO_ON = b"K"
# From the child.
RUNTIME_HOOKS = b"H"
CONSOLE = b"C"
LISTENER = b"L"
IDMAP = b"M"
READY = b"R"
INIT = b"I"
FS_TREES = b"F"
FS_REGISTER = b"S"
FAILED = b"E"
WARNING = b"W"
DEBUG = b"D"

_PAYLOAD_MAX = 1 << 16


class Channel:
    """One end: `read_fd` and `write_fd`."""

    __slots__ = ("read_fd", "write_fd")

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd = read_fd
        self.write_fd = write_fd

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Send one message; shorter than PIPE_BUF it is atomic."""
        payload = payload[:_PAYLOAD_MAX]
        data = kind + len(payload).to_bytes(4, "little") + payload
        while data:
            data = data[os.write(self.write_fd, data) :]

    def receive(self) -> tuple[bytes, bytes] | None:
        """The next message as `(kind, payload)`, None at the end."""
        head = self._read(5)
        if len(head) < 5:
            return None
        return head[:1], self._read(min(int.from_bytes(head[1:], "little"), _PAYLOAD_MAX))

    def close(self) -> None:
        """Close both descriptors."""
        for fd in (self.read_fd, self.write_fd):
            if fd >= 0:
                os.close(fd)
        self.read_fd = self.write_fd = -1

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = os.read(self.read_fd, size - len(data))
            if not part:
                break
            data += part
        return data


def pair() -> tuple[Channel, Channel]:
    """The host's and the child's end, close-on-exec."""
    to_child = os.pipe()
    to_host = os.pipe()
    return Channel(to_host[0], to_child[1]), Channel(to_child[0], to_host[1])

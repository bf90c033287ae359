"""The sockets that others connect to, and who may: root, and whoever runs the daemon."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import time
from typing import TYPE_CHECKING

from sysvisor_runc import log

if TYPE_CHECKING:
    from collections.abc import Callable

_BACKLOG = 128
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, _NO_COOKIE = 4, 20, 1, -1
_TCP_ESTABLISHED = 1
_SAY_AGAIN = 10.0  # seconds between two complaints about peers that were turned away
_REST = 0.5  # seconds in which a descriptor may become free


def listen(path: str, kind: int) -> socket.socket:
    """A listening unix socket that root alone may connect to. A socket that somebody left there gives way.

    The caller holds the lock that makes it the only daemon of the directory.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        mask = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(mask)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def listen_tcp(port: int) -> socket.socket:
    """A listening socket on the loopback interface."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def peer_uid(connection: socket.socket) -> int:
    """The user at the other end; -1 where nobody can tell.

    Raises:
        OSError: it has gone.
    """
    if connection.family == socket.AF_UNIX:
        _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(uid)
    return _tcp_uid(connection.getpeername(), connection.getsockname())


def is_welcome(connection: socket.socket) -> bool:
    """Whether the peer is root, or who runs this daemon. One that has gone is not."""
    try:
        return peer_uid(connection) in (0, os.geteuid())
    except OSError:
        return False


def _tcp_uid(peer: tuple[str, int], ours: tuple[str, int]) -> int:
    """The owner of a local TCP socket: sock_diag(7) finds it by its two addresses, whichever family it was made for.

    struct nlmsghdr { u32 len; u16 type; u16 flags; u32 seq; u32 pid; }, then struct inet_diag_req_v2 { u8 family;
    u8 protocol; u8 ext; u8 pad; u32 states; struct inet_diag_sockid id; }. The answer, struct inet_diag_msg, has the
    uid behind 4 bytes, the 48 of the id and 12 more, and then the inode.

    Of a connection that its owner has closed the kernel keeps a remnant that belongs to nobody, which reads as uid 0.
    """
    addresses = b"".join(socket.inet_aton(address).ljust(16, b"\0") for address, _ in (peer, ours))
    identity = struct.pack("!HH", peer[1], ours[1]) + addresses + struct.pack("=Iq", 0, _NO_COOKIE)
    request = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + identity
    header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as link:
        link.sendall(header + request)
        answer = link.recv(4096)
    return owner_told(answer)


def owner_told(answer: bytes) -> int:
    """The owner that an answer of sock_diag(7) names; -1 unless it is that of a socket that is open and connected."""
    if len(answer) < 16 + 72 or struct.unpack_from("=H", answer, 4)[0] != _SOCK_DIAG_BY_FAMILY:
        return -1
    uid, inode = struct.unpack_from("=II", answer, 16 + 64)
    return int(uid) if answer[17] == _TCP_ESTABLISHED and inode else -1


class Listening:
    """A listening socket, and what is done with each connection that comes in."""

    def __init__(self, listener: socket.socket, take: Callable[[socket.socket], None]) -> None:
        """Shut at first. `take` owns what it is given."""
        self._socket = listener
        self._take = take
        self._resting: asyncio.TimerHandle | None = None
        self._said = -_SAY_AGAIN

    def open(self) -> None:
        """Take connections."""
        self._resting = None
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def shut(self) -> None:
        """Take none for now: they wait in the kernel."""
        if self._resting is not None:
            self._resting.cancel()
        asyncio.get_running_loop().remove_reader(self._socket)

    def close(self) -> None:
        """Take none any more."""
        self.shut()
        self._socket.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError as error:
            log.debug(f"accept: {error}")
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._rest(error)
            return
        self._take(connection)

    def _rest(self, error: OSError) -> None:
        """Shut for a moment: whoever waits and cannot be let in would have the loop spin, and readers wait for it."""
        if (now := time.monotonic()) - self._said >= _SAY_AGAIN:
            self._said = now
            log.error(f"nobody can connect: {error.strerror}: raise the limit on open files, ulimit -n or LimitNOFILE=")
        self.shut()
        self._resting = asyncio.get_running_loop().call_later(_REST, self.open)


class Door:
    """Takes connections, and leads those in whose peer is welcome.

    Attributes:
        refused: how many peers were turned away.
    """

    def __init__(self, listeners: list[socket.socket], lead: Callable[[socket.socket], None]) -> None:
        self._listeners = [Listening(listener, self._taken) for listener in listeners]
        self._lead = lead
        self.refused = 0
        self._said = (0, -_SAY_AGAIN)  # how many of them, and when
        self.open()

    def open(self) -> None:
        """Take connections."""
        for listener in self._listeners:
            listener.open()

    def shut(self) -> None:
        """Take none for now: they wait in the kernel."""
        for listener in self._listeners:
            listener.shut()

    def close(self) -> None:
        """Take none any more."""
        for listener in self._listeners:
            listener.close()

    def _taken(self, connection: socket.socket) -> None:
        if is_welcome(connection):
            self._lead(connection)
        else:
            connection.close()
            self._refuse()

    def _refuse(self) -> None:
        """Count it, and say so now and then: whoever knocks must not fill the log."""
        self.refused += 1
        count, when = self._said
        if (now := time.monotonic()) - when >= _SAY_AGAIN:
            log.warning(f"connections refused: {self.refused - count}")
            self._said = self.refused, now

"""The door to the gRPC server: takes connections, looks who it is, and carries bytes.

gRPC can neither say who its peer is nor listen on a socket that systemd or a predecessor has opened. So the socket
people know is served here, and the server listens on one that nobody else can reach: in a tmpfs that is mounted nowhere
(`private_directory`). Connections are taken before the server is there, and wait for it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time

from sysvisor_runc import log
from sysvisor_runc.kernel import mount as m

_BACKLOG = 128
_CONNECTIONS = 256
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, _NO_COOKIE = 4, 20, 1, -1
_TCP_ESTABLISHED = 1
_SAY_AGAIN = 10.0  # seconds between two complaints about peers that were turned away


def private_directory() -> int:
    """A directory that can be reached through this descriptor alone."""
    context = m.fsopen("tmpfs")
    try:
        m.fsconfig(context, m.FSCONFIG_SET_STRING, "mode", "700")
        m.fsconfig(context, m.FSCONFIG_CMD_CREATE)
        return m.fsmount(context)
    finally:
        os.close(context)


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


class _End(asyncio.Protocol):
    """One of the two connections that belong together.

    Attributes:
        other: its counterpart.
        early: what has come before there was one: the server speaks first.
    """

    def __init__(self, door: Door | None) -> None:
        self._door = door
        self._transport: asyncio.Transport | None = None
        self.other: _End | None = None
        self.early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self.other is not None:
            transport.write(self.other.early)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other._transport is not None:
            self.other._transport.write(data)
        else:
            self.early += data

    def eof_received(self) -> bool:
        return False  # HTTP/2 knows no half of a connection

    def pause_writing(self) -> None:
        if self.other is not None and self.other._transport is not None:
            self.other._transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other._transport is not None:
            self.other._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        other, self.other = self.other, None
        if other is not None:
            other.close()
        if self._door is not None:
            self._door.left()

    def close(self) -> None:
        """Send what is left and hang up."""
        if self._transport is not None:
            self._transport.close()


class Door:
    """Takes connections for the server behind it.

    Attributes:
        refused: how many peers were turned away.
    """

    def __init__(self, listeners: list[socket.socket], inner: str) -> None:
        self._listeners = listeners
        self._inner = inner
        self._open = asyncio.Event()
        self._inside = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.refused = 0
        self._said = (0, -_SAY_AGAIN)  # how many of them, and when
        loop = asyncio.get_running_loop()
        for listener in listeners:
            loop.add_reader(listener, self._accept, listener)

    def open(self) -> None:
        """The server is there."""
        self._open.set()

    def close(self) -> None:
        """Take no more connections; those that are under way end with the server."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener)
            listener.close()
        for task in self._tasks:
            task.cancel()

    def left(self) -> None:
        """A connection has ended."""
        self._inside -= 1

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError as error:
            log.debug(f"accept: {error}")
            return
        connection.setblocking(False)
        if self._inside >= _CONNECTIONS or not is_welcome(connection):
            connection.close()
            self._refuse()
            return
        self._inside += 1
        task = asyncio.get_running_loop().create_task(self._lead(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _refuse(self) -> None:
        """Count it, and say so now and then: whoever knocks must not fill the log."""
        self.refused += 1
        count, when = self._said
        if (now := time.monotonic()) - when >= _SAY_AGAIN:
            log.warning(f"connections refused: {self.refused - count}")
            self._said = self.refused, now

    async def _lead(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        outer: _End | None = None
        try:
            await self._open.wait()
            _, inner = await loop.create_unix_connection(lambda: _End(None), self._inner)
            _, outer = await loop.connect_accepted_socket(lambda: _join(self, inner), connection)
        except (OSError, asyncio.CancelledError) as error:
            if outer is None:
                connection.close()
                self.left()
            log.debug(f"lead a connection to the server: {error}")


def _join(door: Door, inner: _End) -> _End:
    outer = _End(door)
    outer.other, inner.other = inner, outer
    return outer

"""Carries bytes between the connections that the gateway is handed and its gRPC server.

gRPC can neither say who its peer is nor take a connection that somebody else has accepted. So the socket people know
is the daemon's (`door`), and the server listens on one that nobody else can reach: in a tmpfs that is mounted nowhere.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from sysvisor_runc import log
from sysvisor_runc.kernel import mount as m

if TYPE_CHECKING:
    import socket

_CONNECTIONS = 256


def private_directory() -> int:
    """A directory that can be reached through this descriptor alone."""
    context = m.fsopen("tmpfs")
    try:
        m.fsconfig(context, m.FSCONFIG_SET_STRING, "mode", "700")
        m.fsconfig(context, m.FSCONFIG_CMD_CREATE)
        return m.fsmount(context)
    finally:
        os.close(context)


class Relay:
    """Leads connections to the server that listens at the path `inner`."""

    def __init__(self, inner: str) -> None:
        self._inner = inner
        self._inside = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def lead(self, connection: socket.socket) -> None:
        """Take a connection in; one too many is hung up."""
        if self._inside >= _CONNECTIONS:
            log.warning(f"more than {_CONNECTIONS} gRPC connections: one is turned away")
            connection.close()
            return
        connection.setblocking(False)
        self._inside += 1
        task = asyncio.get_running_loop().create_task(self._lead(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def left(self) -> None:
        """A connection has ended."""
        self._inside -= 1

    async def _lead(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        outer: _End | None = None
        try:
            _, inner = await loop.create_unix_connection(lambda: _End(None), self._inner)
            _, outer = await loop.connect_accepted_socket(lambda: _join(self, inner), connection)
        except OSError as error:
            if outer is None:
                connection.close()
                self.left()
            log.debug(f"lead a connection to the server: {error}")


class _End(asyncio.Protocol):
    """One of the two connections that belong together.

    Attributes:
        other: its counterpart.
        early: what has come before there was one: the server speaks first.
    """

    def __init__(self, relay: Relay | None) -> None:
        self._relay = relay
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
        if self._relay is not None:
            self._relay.left()

    def close(self) -> None:
        """Send what is left and hang up."""
        if self._transport is not None:
            self._transport.close()


def _join(relay: Relay, inner: _End) -> _End:
    outer = _End(relay)
    outer.other, inner.other = inner, outer
    return outer

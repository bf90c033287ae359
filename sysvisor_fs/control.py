"""The control socket: the daemon's calls, questions about it, and descriptors, which gRPC cannot carry.

SOCK_SEQPACKET: a packet is one JSON object, a request or its answer. Nothing in here waits, so a connection needs no
task: a packet comes in, the answer goes out. The calls are in `calls`, and the gateway's connection is one like others.

    {"op": "trees", "id": ID, "paths": ["…", …]}  → {"ok": true, "served": [INDEX, …]} and as many descriptors
    {"op": "settle", "id": ID}                    → {"ok": true, "gone": BOOL}
    {"op": "remount", "id": ID}                   → {"ok": true, "pid": INIT, "start": TICKS}
    {"op": "served"}                              → {"ok": true, "ids": [ID, …]}
    {"op": "status"}                              → {"ok": true, "status": {…}}
    {"op": "metrics"}                             → {"ok": true, "metrics": "…"}

A failure is {"error": TEXT, "code": STATUS CODE}.
"""

from __future__ import annotations

import array
import asyncio
import errno
import json
import os
import socket
from typing import TYPE_CHECKING

from sysvisor_fs.calls import Calls, failure
from sysvisor_fs.contract import AlreadyRegistered, NotRegistered
from sysvisor_fs.door import Listening, is_welcome
from sysvisor_runc import log
from sysvisor_runc.contract.names import PACKET_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_fs.contract import DaemonStatus, Registry

    Answer = tuple[dict[str, object], list[int]]

_CONNECTIONS = 1024
_PATHS_MAX = 128  # and so descriptors in one packet (SCM_MAX_FD is 253)
_SO_SNDBUFFORCE = 32  # socket(7); not in the socket module
_SEND_BUFFER = 1 << 20  # a status of a thousand containers is one packet
# Failures that are the caller's, or the kernel's: all others are a fault of ours.
_EXPECTED = (AlreadyRegistered, NotRegistered, ValueError, OSError)


class Control:
    """Serves one listening socket, and connections that it is given.

    Attributes:
        calls: what carries out the calls of the contract.
    """

    def __init__(
        self,
        listener: socket.socket,
        registry: Registry,
        status: Callable[[], DaemonStatus],
        metrics: Callable[[], str],
    ) -> None:
        self.calls = Calls(registry)
        self._listener = Listening(listener, self._taken)
        self._connections: set[socket.socket] = set()
        self._ops: dict[str, Callable[[dict[str, object]], Answer]] = {
            "settle": lambda request: ({"gone": registry.settle(_text(request, "id"))}, []),
            "remount": lambda request: (_remount(registry, request), []),
            "served": lambda request: ({"ids": registry.served()}, []),
            "status": lambda request: ({"status": status()}, []),
            "metrics": lambda request: ({"metrics": metrics()}, []),
            "trees": lambda request: _trees(registry, request),
        }
        self._listener.open()

    def close(self) -> None:
        """Stop listening and hang up on everybody. What they were holding is the successor's to know."""
        self._listener.close()
        for connection in list(self._connections):
            self._hang_up(connection)

    def serve(self, connection: socket.socket) -> None:
        """Answer whoever is at the other end of a connection, which is ours from now on."""
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
        self._connections.add(connection)
        asyncio.get_running_loop().add_reader(connection, self._readable, connection)

    def _taken(self, connection: socket.socket) -> None:
        if len(self._connections) >= _CONNECTIONS or not is_welcome(connection):
            connection.close()
            return
        self.serve(connection)

    def _readable(self, connection: socket.socket) -> None:
        try:
            packet, _, flags, _ = connection.recvmsg(PACKET_MAX)
        except BlockingIOError:
            return
        except OSError:
            packet, flags = b"", 0
        if not packet:
            self._left(connection)
            return
        answer, descriptors = self._answer(connection, packet, whole=not flags & socket.MSG_TRUNC)
        try:
            _send(connection, answer, descriptors)
        except OSError as error:  # gone, or one that asks and never reads
            log.debug(f"answer on the control socket: {error}")
            self._left(connection)
        finally:
            for fd in descriptors:
                os.close(fd)

    def _answer(self, connection: socket.socket, packet: bytes, *, whole: bool) -> Answer:
        try:
            if not whole:
                raise ValueError(f"a request of more than {PACKET_MAX} bytes")
            answer, descriptors = self._carry_out(connection, json.loads(packet))
        except _EXPECTED as error:
            code, problem = failure(error)
            log.debug(f"control request {packet[:200]!r}: {code}: {problem}")
            return {"error": problem, "code": code}, []
        except Exception as error:  # noqa: BLE001  # the boundary: a fault of ours must not end the daemon
            log.error(f"control request {packet[:200]!r}: {type(error).__name__}: {error}")
            code, problem = failure(error)
            return {"error": problem, "code": code}, []
        return {"ok": True, **answer}, descriptors

    def _carry_out(self, connection: socket.socket, request: object) -> Answer:
        op = request.get("op") if isinstance(request, dict) else None
        if isinstance(request, dict) and isinstance(op, str):
            if op in self.calls.ops:
                return self.calls.carry_out(op, request, connection), []
            if op in self._ops:
                return self._ops[op](request)
        known = ", ".join((*self.calls.ops, *self._ops))
        raise ValueError(f"expected a JSON object whose op is one of {known}")

    def _left(self, connection: socket.socket) -> None:
        self._hang_up(connection)
        self.calls.left(connection)

    def _hang_up(self, connection: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(connection)
        self._connections.discard(connection)
        connection.close()


def _send(connection: socket.socket, answer: dict[str, object], descriptors: list[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    connection.sendmsg([json.dumps(answer).encode()], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def _text(request: dict[str, object], key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key}: expected a text")
    return value


def _remount(registry: Registry, request: dict[str, object]) -> dict[str, object]:
    pid, start = registry.remount(_text(request, "id"))
    return {"pid": pid, "start": start}


def _trees(registry: Registry, request: dict[str, object]) -> Answer:
    """What is not there (no such file of this kernel) is left out; `served` says which ones are."""
    container_id, paths = _text(request, "id"), request.get("paths")
    if not isinstance(paths, list) or len(paths) > _PATHS_MAX or not all(isinstance(path, str) for path in paths):
        raise ValueError(f"paths: expected a list of at most {_PATHS_MAX} texts")
    served: list[int] = []
    descriptors: list[int] = []
    try:
        for index, path in enumerate(paths):
            try:
                descriptors += registry.trees(container_id, [path])
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    raise
                continue
            served.append(index)
    except BaseException:
        for fd in descriptors:
            os.close(fd)
        raise
    return {"served": served}, descriptors

"""The supervisor's control socket: requests in, answers and streams out. `launch.tell` is the other end.

Knows no operation: a table maps each to its handler. By add_reader and add_writer only, without asyncio's streams: a
connection that is read from costs one object, and descriptors come along with the bytes.
"""

from __future__ import annotations

import _socket
import errno
import inspect
import os

from sysvisor_runc import log
from sysvisor_runc.aio.loop import asyncio
from sysvisor_runc.errors import SysvisorError
from sysvisor_runc.jsonlight import dumps, loads
from sysvisor_runc.launch.tell import received, rights

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sysvisor_runc.aio.loop import AbstractEventLoop

    Answer = dict[str, object]
    # What carries out an operation: gives the answer, or None if it has sent what there is to say by itself.
    Handler = Callable[["Call"], Answer | Awaitable[Answer | None] | None]

_REQUEST_MAX = 1 << 20
_FDS_MAX = 16
_CHUNK = 1 << 16
# What waits for a peer that does not read: more is not kept for it, `drain` waits below the lower mark.
BACKLOG_MAX = 4 << 20
_BACKLOG_LOW = 64 << 10
_CONNECTIONS_MAX = 1024


class Refusal(SysvisorError):
    """An operation cannot be carried out; the peer is told so."""


class Call:
    """One request of a peer.

    Attributes:
        request: the object it sent.
        fds: descriptors that came with it; those that are not taken away by `take_fds` are closed after the answer.
        connection: where answers go.
    """

    __slots__ = ("connection", "fds", "request")

    def __init__(self, connection: Connection, request: dict[str, object], fds: list[int]) -> None:
        self.connection = connection
        self.request = request
        self.fds = fds

    def text(self, key: str, default: str | None = None) -> str:
        """A string of the request; without a default it must be there.

        Raises:
            Refusal: it is missing or no string.
        """
        value = self.request.get(key, default)
        if not isinstance(value, str):
            raise Refusal(f"{self.request.get('op')}: {key!r} must be a string")
        return value

    def take_fds(self) -> list[int]:
        """The descriptors, which are the caller's from now on."""
        fds, self.fds = self.fds, []
        return fds

    def line(self, value: Answer, fds: Sequence[int] = ()) -> None:
        """Send one line of an answer."""
        self.connection.send(value, fds)

    async def drain(self) -> None:
        """Wait until the peer has read most of what it was sent."""
        await self.connection.drain()

    def close_fds(self) -> None:
        for fd in self.take_fds():
            os.close(fd)


class Connection:
    """One peer.

    Attributes:
        uid: the peer's user, which the kernel says.
        closed: called once when the peer has gone or was sent away.
    """

    __slots__ = (
        "_backlog",
        "_buffer",
        "_drained",
        "_ending",
        "_fds",
        "_link",
        "_loop",
        "_server",
        "_task",
        "_writing",
        "closed",
        "uid",
    )

    def __init__(self, server: ControlServer, loop: AbstractEventLoop, link: _socket.socket, uid: int) -> None:
        self._server = server
        self._loop = loop
        self._link = link
        self._buffer = bytearray()
        self._fds: list[int] = []
        self._backlog = bytearray()
        self._writing = False
        self._ending = False
        self._drained: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.closed: Callable[[], None] | None = None
        self.uid = uid
        loop.add_reader(link.fileno(), self._readable)

    # ---- in

    def _readable(self) -> None:
        try:
            data, control, flags, _ = self._link.recvmsg(
                _CHUNK, _socket.CMSG_SPACE(_FDS_MAX * 4), _socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._fds += received(control)
        if flags & _socket.MSG_CTRUNC:
            self._out_of_descriptors()
            return
        if not data:
            self.close()
            return
        self._buffer += data
        if len(self._buffer) > _REQUEST_MAX:
            self.close()
            return
        self._serve()

    def _out_of_descriptors(self) -> None:
        """The kernel could not give us what was sent along: our limit is reached (unix(7))."""
        self.send({
            "error": "the supervisor has no descriptor left for what was sent along",
            "hint": "raise its limit on open files: ulimit -n, LimitNOFILE=",
            "code": 1,
        })  # fmt: skip
        self.close()

    def _serve(self) -> None:
        """Carry out what has been asked for, one request after the other."""
        while self._task is None and self._link.fileno() >= 0:
            line, newline, rest = self._buffer.partition(b"\n")
            if not newline:
                return
            self._buffer = rest
            fds, self._fds = self._fds, []
            self._call(bytes(line), fds)

    def _call(self, line: bytes, fds: list[int]) -> None:
        try:
            request = loads(line)
        except ValueError as error:
            request = None
            log.debug(f"control: not readable: {error}")
        if not isinstance(request, dict):
            self.send({"error": "a request is one line with a JSON object", "code": 1})
            for fd in fds:
                os.close(fd)
            return
        call = Call(self, request, fds)
        try:
            result = self._server.handler(request)(call)
        except Exception as error:  # noqa: BLE001  # the boundary: whatever it is, the peer is told and the loop goes on
            self._failed(call, error)
            return
        if inspect.isawaitable(result):
            self._task = asyncio.ensure_future(self._await(call, result))
        else:
            self._answered(call, result)

    async def _await(self, call: Call, result: Awaitable[Answer | None]) -> None:
        try:
            self._answered(call, await result)
        except asyncio.CancelledError:
            call.close_fds()
        except Exception as error:  # noqa: BLE001  # as in _call
            self._failed(call, error)
        finally:
            self._task = None
            if self._link.fileno() >= 0:
                self._loop.call_soon(self._serve)

    def _answered(self, call: Call, result: Answer | None) -> None:
        call.close_fds()
        if result is not None:
            self.send({"ok": True, **result})

    def _failed(self, call: Call, error: Exception) -> None:
        call.close_fds()
        if isinstance(error, SysvisorError):
            self.send({"error": error.message, "hint": error.hint or "", "code": error.exit_code})
            return
        log.error(f"control: {call.request.get('op')}: {type(error).__name__}: {error}")
        self.send({"error": f"internal error of the supervisor: {type(error).__name__}: {error}", "code": 1})

    # ---- out

    @property
    def backlog(self) -> int:
        """How many bytes the peer has yet to read."""
        return len(self._backlog)

    def send(self, value: Answer, fds: Sequence[int] = ()) -> None:
        """Send one line. A peer that lets too much pile up is sent away."""
        self.send_bytes(dumps(value).encode("utf-8", "surrogateescape") + b"\n", fds)

    def send_bytes(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send bytes as they are."""
        if self._link.fileno() < 0:
            return
        if fds:
            # With the first byte of this line: nothing may be waiting before it, which a handler sees to.
            data = data[self._send_now(data, fds) :]
        elif not self._backlog:
            data = data[self._send_now(data) :]
        if data and self._link.fileno() >= 0:
            self._backlog += data
            if len(self._backlog) > BACKLOG_MAX:
                log.warning("control: a peer that does not read is sent away")
                self.close()
            elif not self._writing:
                self._writing = True
                self._loop.add_writer(self._link.fileno(), self._writable)

    def _send_now(self, data: bytes | bytearray, fds: Sequence[int] = ()) -> int:
        try:
            return self._link.sendmsg([data], rights(fds), _socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError:  # it has gone; what it was told last does not matter
            self._loop.call_soon(self.close)
            return len(data)

    def _writable(self) -> None:
        del self._backlog[: self._send_now(memoryview(self._backlog)[:_CHUNK].tobytes())]
        if not self._backlog and self._writing:
            self._writing = False
            self._loop.remove_writer(self._link.fileno())
            if self._ending:
                self.close()
                return
        if len(self._backlog) <= _BACKLOG_LOW and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    async def drain(self) -> None:
        """Wait until the peer has read most of what it was sent."""
        if len(self._backlog) > _BACKLOG_LOW:
            self._drained = self._loop.create_future()
            await self._drained
            self._drained = None

    def finish(self) -> None:
        """Close once the peer has read what it was sent."""
        self._ending = True
        if not self._backlog:
            self.close()

    def close(self) -> None:
        """Send the peer away; what is under way for it is cancelled."""
        fd = self._link.fileno()
        if fd < 0:
            return
        self._loop.remove_reader(fd)
        if self._writing:
            self._loop.remove_writer(fd)
        self._link.close()
        for other in self._fds:
            os.close(other)
        self._fds = []
        if self._task is not None:
            self._task.cancel()
        self._server.forget(self)
        if self.closed is not None:
            closed, self.closed = self.closed, None
            closed()


class ControlServer:
    """Listens on `listener`, whose owner it becomes, and carries out the operations in `handlers`.

    Attributes:
        handlers: operation → what carries it out; others may add theirs.
        connections: the peers of this moment.
        changed: called when a peer has come or gone.
    """

    def __init__(self, loop: AbstractEventLoop, listener: _socket.socket, handlers: dict[str, Handler]) -> None:
        self._loop = loop
        self.handlers = handlers
        self.connections: set[Connection] = set()
        self.changed: Callable[[], None] = _nothing
        # Given up for a moment when descriptors run out: a peer that cannot be accepted would spin the loop.
        self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._listener = listener
        self._start()

    def _start(self) -> None:
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener.fileno(), self.accept)

    def listen(self, listener: _socket.socket) -> None:
        """Listen on another socket from here on: ours cannot be reached any more."""
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        self._listener = listener
        self._start()

    def handler(self, request: dict[str, object]) -> Handler:
        """What carries out the operation of a request.

        Raises:
            Refusal: there is no such operation.
        """
        name = request.get("op")
        if not isinstance(name, str) or name not in self.handlers:
            known = " ".join(sorted(self.handlers))
            raise Refusal(f"unknown operation {name!r}", hint=f"this supervisor knows {known}")
        return self.handlers[name]

    def accept(self) -> int:
        """Accept every peer that waits; how many there were."""
        count = 0
        while True:
            try:
                fd, _ = self._listener._accept()  # type: ignore[attr-defined]  # accept4(2) of _socket
            except BlockingIOError:
                return count
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._refuse_one()
                    return count
                if error.errno != errno.ECONNABORTED:
                    log.warning(f"control: accept: {error}")
                    return count
                continue
            self._accepted(_socket.socket(fileno=fd))
            count += 1

    def _accepted(self, link: _socket.socket) -> None:
        link.setblocking(False)
        credentials = link.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)  # struct ucred: pid, uid, gid
        uid = int.from_bytes(credentials[4:8], "little")
        if uid not in (0, os.geteuid()) or len(self.connections) >= _CONNECTIONS_MAX:
            link.close()
            return
        self.connections.add(Connection(self, self._loop, link, uid))
        self.changed()

    def _refuse_one(self) -> None:
        """Tell a peer that we are out of descriptors, with the one kept for that."""
        os.close(self._reserve)
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]  # as above
            link = _socket.socket(fileno=fd)
            text = {
                "error": "the supervisor has no descriptor left",
                "hint": "raise its limit on open files: ulimit -n, LimitNOFILE=",
                "code": 1,
            }
            try:
                link.setblocking(False)
                link.send(dumps(text).encode() + b"\n", _socket.MSG_NOSIGNAL)
            except OSError:
                pass
            link.close()
        except OSError:
            pass
        self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def forget(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self.changed()

    def close(self) -> None:
        """Stop listening, and send everybody away."""
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
            os.close(self._reserve)
        for connection in [*self.connections]:
            connection.close()


def _nothing() -> None:
    pass

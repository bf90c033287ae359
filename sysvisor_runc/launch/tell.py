"""Speak to the resident supervisor of a state root, from a command: lines of JSON over its socket. No asyncio.

`tell` says something and goes on, whether anybody listens or not; `ask` wants an answer.

    ROOT/@supervisor/control.sock   a stream; a request is one line {"op": NAME, ...}, and so is each answer:
                                    {"ok": true, ...} or {"error": TEXT, "hint": TEXT, "code": N}
Descriptors travel with the first byte of a line (unix(7), SCM_RIGHTS).
"""

from __future__ import annotations

import _socket
import os

from sysvisor_runc.errors import SysvisorError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DIRECTORY = "@supervisor"
SOCKET = "control.sock"
# sun_path has 108 bytes, one for the NUL (unix(7)).
_PATH_MAX = 107
_FDS_MAX = 16
_CHUNK = 1 << 16
_CONNECT = 10.0  # seconds


class NoSupervisor(SysvisorError):
    """Nobody looks after the containers of this state root."""


class SupervisorError(SysvisorError):
    """The supervisor refuses, or does not answer."""


def tell(root: str, request: dict[str, object], fds: Sequence[int] = ()) -> None:
    """Send `request` to the supervisor if there is one and it can take it right now; never fails, never waits."""
    try:
        link = connect(root, flags=_socket.SOCK_NONBLOCK)
    except OSError:
        return
    try:
        _send(link, request, fds, _socket.MSG_DONTWAIT)
    except OSError:
        pass  # it is busy or ending; what it must know it finds in the state root
    finally:
        link.close()


def ask(
    root: str, request: dict[str, object], fds: Sequence[int] = (), *, timeout: float = 10.0
) -> tuple[dict[str, object], list[int]]:
    """The supervisor's answer to `request`, and the descriptors that came with it.

    Raises:
        NoSupervisor: there is none.
        SupervisorError: it refuses, or gives no answer within `timeout` seconds.
    """
    with Dialogue(root, timeout=timeout) as dialogue:
        return dialogue.ask(request, fds), dialogue.fds


def connect(root: str, *, flags: int = 0, patience: float = _CONNECT) -> _socket.socket:
    """A stream to the supervisor's socket. Raises OSError: ENOENT or ECONNREFUSED where nobody listens."""
    link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | flags)
    blocking = not flags & _socket.SOCK_NONBLOCK
    try:
        if blocking:
            link.settimeout(patience)  # the queue of one that has been stopped may be full
        with_path(root, link.connect)
        if blocking:
            link.settimeout(None)
    except BaseException:
        link.close()
        raise
    return link


def with_path(root: str, use: object) -> None:
    """Call `use(path)` with the path of the socket, however long the state root's is. Raises OSError."""
    path = f"{os.path.abspath(root)}/{DIRECTORY}/{SOCKET}"
    if len(os.fsencode(path)) <= _PATH_MAX:
        use(path)  # type: ignore[operator]  # connect or bind of a socket, which have no type in common
        return
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        use(f"/proc/self/fd/{directory}/{SOCKET}")  # type: ignore[operator]  # as above
    finally:
        os.close(directory)


class Dialogue:
    """A connection to the supervisor: asks, and reads the lines of an answer that goes on.

    Attributes:
        fds: the descriptors received so far, close-on-exec; the caller's.
    """

    __slots__ = ("_buffer", "_link", "fds")

    def __init__(self, root: str, *, timeout: float | None = 10.0) -> None:
        self.fds: list[int] = []
        self._buffer = b""
        try:
            self._link = connect(root)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
            hint = "`run --detach` starts one, and so does `supervisor`"
            raise NoSupervisor(f"no supervisor looks after {os.path.abspath(root)!r}", hint=hint) from error
        except OSError as error:
            raise SupervisorError(f"connect to the supervisor of {root!r}: {reason(error)}") from error
        self._link.settimeout(timeout)

    def __enter__(self) -> Dialogue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        return self._link.fileno()

    def close(self) -> None:
        self._link.close()

    def patient(self) -> None:
        """Wait for lines without a bound from now on."""
        self._link.settimeout(None)

    def ask(self, request: dict[str, object], fds: Sequence[int] = ()) -> dict[str, object]:
        """The answer to `request`.

        Raises:
            SupervisorError: it refuses, or gives no answer in time.
        """
        try:
            _send(self._link, request, fds, 0)
        except OSError as error:
            raise self._silent(error) from error
        answer = self.line()
        if answer is None:
            raise SupervisorError("the supervisor ended without an answer", hint="try again")
        if "error" in answer:
            hint, code = answer.get("hint"), answer.get("code")
            raise SupervisorError(
                str(answer["error"]),
                hint=str(hint) if hint else None,
                exit_code=code if isinstance(code, int) and code else None,
            )
        return answer

    def post(self, request: dict[str, object], fds: Sequence[int] = ()) -> None:
        """Send `request`, whose answer nobody waits for; it is carried out even after we have closed.

        Raises:
            SupervisorError: it cannot be sent.
        """
        try:
            _send(self._link, request, fds, 0)
        except OSError as error:
            raise self._silent(error) from error

    def line(self) -> dict[str, object] | None:
        """The next line of an answer; None at its end.

        Raises:
            SupervisorError: nothing came in time, or it makes no sense.
        """
        from sysvisor_runc.jsonlight import loads

        while b"\n" not in self._buffer:
            part = self._receive()
            if not part:
                return None
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\n")
        try:
            value = loads(text)
        except ValueError as error:
            raise SupervisorError(f"the supervisor's answer is not readable: {error}") from error
        if not isinstance(value, dict):
            raise SupervisorError("the supervisor's answer is no object")
        return value

    def lines(self) -> Iterator[dict[str, object]]:
        """All further lines, for as long as they come."""
        while (line := self.line()) is not None:
            yield line

    def rest(self) -> bytes:
        """What has been read beyond the last line, for an answer that goes on as mere bytes."""
        rest, self._buffer = self._buffer, b""
        return rest

    def _receive(self) -> bytes:
        try:
            data, control, _, _ = self._link.recvmsg(_CHUNK, _socket.CMSG_SPACE(_FDS_MAX * 4), _socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return b""
        except OSError as error:
            raise self._silent(error) from error
        self.fds += received(control)
        return data

    def _silent(self, error: OSError) -> SupervisorError:
        hint = "is it stopped? `supervisor --status` tells its pid" if isinstance(error, TimeoutError) else None
        return SupervisorError(f"the supervisor does not answer: {reason(error)}", hint=hint)


def received(control: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors in a message's control data."""
    fds = []
    for level, kind, data in control:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds += [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data) // 4 * 4, 4)]
    return fds


def rights(fds: Sequence[int]) -> list[tuple[int, int, bytes]]:
    """The control data that carries `fds`."""
    if not fds:
        return []
    return [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, b"".join(fd.to_bytes(4, "little") for fd in fds))]


def _send(link: _socket.socket, request: dict[str, object], fds: Sequence[int], flags: int) -> None:
    from sysvisor_runc.jsonlight import dumps

    data = dumps(request).encode("utf-8", "surrogateescape") + b"\n"
    sent = link.sendmsg([data], rights(fds), flags | _socket.MSG_NOSIGNAL)
    if sent < len(data):
        if flags & _socket.MSG_DONTWAIT:
            raise BlockingIOError(11, os.strerror(11))
        link.sendall(data[sent:])

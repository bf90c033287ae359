"""Have somebody else make the gRPC calls of a launch: the resident supervisor, else an agent that we fork.

gRPC takes a tenth of a second to load and runs threads, with which no namespace can be joined and no child can be
cloned. The agent is forked while this process has one thread, loads gRPC while the launch goes on, and ends with it.
Both speak lines of JSON over a stream: {"op": "fs", "call": NAME, …} and {"ok": true, …} or {"error": TEXT}.

A supervisor that does not answer (it was stopped, or starves) is given up for an agent, which is told what has no
answer yet. `until` is the moment, of the monotonic clock, from which the supervisor is to leave a request alone; and
it keeps its end of the link until the launch is over, when the record says whether there is anything to undo.
"""

from __future__ import annotations

import _socket
import os
import time

from sysvisor_runc import log
from sysvisor_runc.contract.names import DEADLINE
from sysvisor_runc.errors import LaunchError
from sysvisor_runc.jsonlight import dumps, loads
from sysvisor_runc.kernel.syscall import syscall
from sysvisor_runc.launch import tell
from sysvisor_runc.launch.fscontrol import failure
from sysvisor_runc.launch.interrupt import wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    Serve = Callable[[int], None]

_CHUNK = 1 << 16


class Link:
    """Requests go out in order, and so come the answers.

    Attributes:
        agent: the pid of an agent of ours, 0 where it is the supervisor's.
        refusal: the status code of the last call that failed.
        gone: there is nobody at the other end any more.
    """

    __slots__ = ("_buffer", "_given_up", "_serve", "_socket", "_waiting", "agent", "gone", "refusal")

    def __init__(self, link: _socket.socket, serve: Serve | None, agent: int = 0) -> None:
        self._socket = link
        self._serve = serve
        self._given_up: _socket.socket | None = None  # the supervisor's
        self._buffer = b""
        self._waiting: list[dict[str, object]] = []
        self.agent = agent
        self.refusal = ""
        self.gone = False

    def send(self, request: dict[str, object]) -> None:
        """Send a request; `receive` gives the answer.

        Raises:
            LaunchError: the other end is gone.
        """
        self._write(request)
        self._waiting.append(request)

    def _write(self, request: dict[str, object], **more: object) -> None:
        if not self.agent:
            more["until"] = time.monotonic() + DEADLINE
        try:
            self._socket.sendall(dumps({"op": "fs", **request, **more}).encode() + b"\n")
        except OSError:
            raise self._vanished() from None

    def _vanished(self) -> LaunchError:
        self.gone = True
        return failure("whoever makes its calls has ended unexpectedly")

    def receive(self) -> dict[str, object]:
        """The answer to the oldest request that has none yet.

        Raises:
            LaunchError: the call has failed.
            Interrupted: a signal came first.
        """
        while b"\n" not in self._buffer:
            if not wait_readable(self._socket.fileno(), None if self.agent else DEADLINE):
                self._give_up()
                continue
            try:
                part = self._socket.recv(_CHUNK)
            except ConnectionResetError:  # it was killed before it has read all of ours
                part = b""
            if not part:
                raise self._vanished()
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        self._waiting.pop(0)
        answer = loads(line)
        if not isinstance(answer, dict) or "error" in answer:
            self.refusal = str(answer.get("status")) if isinstance(answer, dict) else ""
            raise failure(str(answer.get("error")) if isinstance(answer, dict) else "its answer is no object")
        return answer

    def call(self, request: dict[str, object]) -> dict[str, object]:
        """The answer to a request, once those before it are answered, whatever they were. Raises as `receive`."""
        self.drain()
        self.send(request)
        return self.receive()

    def drain(self) -> None:
        """Wait for the answers to all requests, whatever they are; `refusal` keeps what was refused."""
        while self._waiting:
            waiting = len(self._waiting)
            try:
                self.receive()
            except LaunchError:
                if len(self._waiting) == waiting:  # no answer: there is nobody
                    return

    def _give_up(self) -> None:
        """Have an agent do what the supervisor does not.

        Raises:
            LaunchError: there can be none.
        """
        text = f"the supervisor, which makes its calls, does not answer within {DEADLINE:g} s"
        if self._serve is None:
            raise failure(text)
        log.warning(f"sysvisor-fs: {text}; done without it")
        self._given_up, self._buffer = self._socket, b""
        self._socket, self.agent = _fork_agent(self._serve)
        for request in self._waiting:
            self._write(request, again=True)

    def descriptors(self) -> list[int]:
        """What a child must not keep."""
        return [self._socket.fileno()]

    def close(self) -> None:
        """Let go of the supervisor, or have the agent end; it undoes what it was not told to keep."""
        for one in (self._socket, self._given_up):
            if one is not None:
                one.close()
        if self.agent:
            try:
                os.waitpid(self.agent, 0)
            except ChildProcessError:
                pass  # reaped as an orphan
            self.agent = 0


def open_link(root: str, serve: Serve | None) -> Link:
    """A link to the supervisor of the state root if there is one, else to an agent: a fork of us that runs `serve`.

    Raises:
        LaunchError: there is neither.
    """
    try:
        return Link(tell.connect(root, patience=DEADLINE), serve)
    except OSError:
        if serve is None:
            raise failure("there is no supervisor that could make its calls") from None
    link, agent = _fork_agent(serve)
    return Link(link, serve, agent)


def _fork_agent(serve: Serve) -> tuple[_socket.socket, int]:
    """Our end of the link to a new agent, and its pid."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _be_agent(theirs.detach(), serve)
    theirs.close()
    return ours, pid


def _be_agent(link: int, serve: Serve) -> NoReturn:
    """Keep nothing of the command's but the link: locks and pipes end when the command lets go of them."""
    try:
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.dup2(link, 3)
        syscall("close_range", 4, 0xFFFFFFFF, 0)
        os.chdir("/")
        serve(3)
    finally:
        os._exit(0)

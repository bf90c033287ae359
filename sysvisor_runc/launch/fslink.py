"""Have somebody else make the gRPC calls of a launch: the resident supervisor, else an agent that we fork.

gRPC takes a tenth of a second to load and runs threads, with which no namespace can be joined and no child can be
cloned. The agent is forked while this process has one thread, loads gRPC while the launch goes on, and ends with it.
Both speak lines of JSON over a stream: {"op": "fs", "call": NAME, …} and {"ok": true, …} or {"error": TEXT}.
"""

from __future__ import annotations

import _socket
import os

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
    """

    __slots__ = ("_buffer", "_socket", "_waiting", "agent", "refusal")

    def __init__(self, link: _socket.socket, agent: int = 0) -> None:
        self._socket = link
        self._buffer = b""
        self._waiting = 0
        self.agent = agent
        self.refusal = ""

    def send(self, request: dict[str, object]) -> None:
        """Send a request; `receive` gives the answer.

        Raises:
            LaunchError: the other end is gone.
        """
        try:
            self._socket.sendall(dumps({"op": "fs", **request}).encode() + b"\n")
        except OSError:
            raise failure("whoever makes its calls has ended unexpectedly") from None
        self._waiting += 1

    def receive(self) -> dict[str, object]:
        """The answer to the oldest request that has none yet.

        Raises:
            LaunchError: the call has failed.
            Interrupted: a signal came first.
        """
        while b"\n" not in self._buffer:
            wait_readable(self._socket.fileno())
            part = self._socket.recv(_CHUNK)
            if not part:
                raise failure("whoever makes its calls has ended unexpectedly")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        self._waiting -= 1
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
            waiting = self._waiting
            try:
                self.receive()
            except LaunchError:
                if self._waiting == waiting:  # no answer: there is nobody
                    return

    def descriptors(self) -> list[int]:
        """What a child must not keep."""
        return [self._socket.fileno()]

    def close(self) -> None:
        """Let go of the supervisor, or have the agent end; it undoes what it was not told to keep."""
        self._socket.close()
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
        return Link(tell.connect(root))
    except OSError:
        if serve is None:
            raise failure("there is no supervisor that could make its calls") from None
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _be_agent(theirs.detach(), serve)
    theirs.close()
    return Link(ours, pid)


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

"""Have the calls of a launch made: by the resident supervisor, by our own daemon itself, or by an agent that we fork.

The supervisor has a gRPC channel that is warm. Where there is none our own daemon takes the calls over its control
socket. One of another make takes them over gRPC only, which takes a tenth of a second to load and runs threads, with
which no namespace can be joined and no child can be cloned: the agent is forked while this process has one thread,
loads gRPC while the launch goes on, and ends with it.

Supervisor and agent speak lines of JSON over a stream: {"op": "fs", "call": NAME, …} and {"ok": true, …} or
{"error": TEXT}. A supervisor that does not answer (it was stopped, or starves), or says that it is `unable` (it has no
gRPC), is given up for one of the others.
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
from sysvisor_runc.launch.fscontrol import NoAnswer, failure
from sysvisor_runc.launch.interrupt import wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, Protocol

    from sysvisor_runc.launch.fscontrol import Connection

    Serve = Callable[[int], None]
    Request = dict[str, object]
    Answer = dict[str, object]

    class Caller(Protocol):
        """Who makes the calls.

        Attributes:
            told: it has to be told that the launch has succeeded, or would take back what it has done.
        """

        told: bool

        # Begin with a call; `again`: it may have been made before.
        def write(self, request: Request, *, again: bool) -> None: ...
        # The next answer. NoAnswer where there is none.
        def read(self) -> Answer: ...
        # Who makes the calls now that this one has not answered: itself, perhaps. LaunchError where nobody can.
        def replaced(self, problem: NoAnswer) -> Caller: ...
        # What a child must not keep.
        def descriptors(self) -> list[int]: ...
        def close(self) -> None: ...


_CHUNK = 1 << 16
_DAEMONS = 3  # that may end with the same request
_GONE = "whoever makes its calls has ended unexpectedly"


class Unable(NoAnswer):
    """Whoever makes the calls is there and can make none: nothing of what was asked for has been done."""


class Link:
    """Requests go out in order, and so come the answers.

    Attributes:
        refusal: the status code of the last call that failed.
        gone: there is nobody at the other end any more.
    """

    __slots__ = ("_callers", "_waiting", "gone", "refusal")

    def __init__(self, caller: Caller) -> None:
        # The last one makes the calls. Those before it were given up and are kept until the launch is over, when its
        # record tells the supervisor whether there is anything to undo.
        self._callers = [caller]
        self._waiting: list[Request] = []
        self.refusal = ""
        self.gone = False

    @property
    def told(self) -> bool:
        """Whether somebody waits to be told that the launch has succeeded."""
        return self._callers[-1].told

    def send(self, request: Request) -> None:
        """Send a request; `receive` gives the answer."""
        self._callers[-1].write(request, again=False)
        self._waiting.append(request)

    def receive(self) -> Answer:
        """The answer to the oldest request that has none yet.

        Raises:
            LaunchError: the call has failed.
            Interrupted: a signal came first.
        """
        answer: Answer | None = None
        while answer is None:
            try:
                answer = self._callers[-1].read()
            except NoAnswer as problem:
                self._replace(problem)
        self._waiting.pop(0)
        if "error" in answer:
            self.refusal = str(answer.get("status"))
            raise failure(str(answer["error"]))
        return answer

    def _replace(self, problem: NoAnswer) -> None:
        try:
            caller = self._callers[-1].replaced(problem)
        except LaunchError:
            self.gone = True
            raise
        if caller is not self._callers[-1]:
            self._callers.append(caller)
        for request in self._waiting:
            caller.write(request, again=not isinstance(problem, Unable))

    def call(self, request: Request) -> Answer:
        """The answer to a request, once those before it are answered, whatever they were. Raises as `receive`."""
        self.drain()
        self.send(request)
        return self.receive()

    def drain(self) -> None:
        """Wait for the answers to all requests, whatever they are; `refusal` keeps what was refused."""
        while self._waiting and not self.gone:
            try:
                self.receive()
            except LaunchError:
                pass

    def descriptors(self) -> list[int]:
        """What a child must not keep."""
        return [fd for caller in self._callers for fd in caller.descriptors()]

    def close(self) -> None:
        """Let go of all."""
        for caller in self._callers:
            caller.close()


class _Stream:
    """Lines over a stream."""

    told = True
    patience: float | None = None  # seconds, in which an answer has to come

    def __init__(self, link: _socket.socket) -> None:
        self._socket = link
        self._buffer = b""

    def write(self, request: Request, *, again: bool) -> None:
        if again:
            request = {**request, "again": True}
        try:
            self._socket.sendall(dumps({"op": "fs", **request}).encode() + b"\n")
        except OSError:
            pass  # it is gone, as whoever waits for the answer learns

    def read(self) -> Answer:
        while b"\n" not in self._buffer:
            if not wait_readable(self._socket.fileno(), self.patience):
                raise NoAnswer(f"no answer within {self.patience:g} s")
            try:
                part = self._socket.recv(_CHUNK)
            except ConnectionResetError:  # it was killed before it has read all of ours
                part = b""
            if not part:
                raise NoAnswer(_GONE, ended=True)
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer = loads(line)
        return answer if isinstance(answer, dict) else {"error": "its answer is no object"}

    def descriptors(self) -> list[int]:
        return [self._socket.fileno()]

    def close(self) -> None:
        self._socket.close()


class _Supervisor(_Stream):
    """The resident one, until it does not answer; `instead` gives somebody who does.

    `until` is the moment, of the monotonic clock, from which it is to leave a request alone.
    """

    patience = DEADLINE

    def __init__(self, link: _socket.socket, instead: Callable[[], Caller]) -> None:
        super().__init__(link)
        self._instead = instead

    def write(self, request: Request, *, again: bool) -> None:
        super().write({**request, "until": time.monotonic() + DEADLINE}, again=again)

    def read(self) -> Answer:
        answer = super().read()
        if answer.get("unable"):
            raise Unable(str(answer.get("error")))
        return answer

    def replaced(self, problem: NoAnswer) -> Caller:
        if isinstance(problem, Unable):
            log.debug(f"the supervisor cannot make the calls: {problem.message}; done without it")
            return self._instead()
        if problem.ended:
            text = "the supervisor, which makes its calls, has ended"
        else:
            text = f"the supervisor, which makes its calls, does not answer within {DEADLINE:g} s"
        caller = self._instead()
        log.warning(f"sysvisor-fs: {text}; done without it")
        return caller


class _Agent(_Stream):
    """A fork of ours, which speaks gRPC and takes back what it is not told to keep."""

    def __init__(self, serve: Serve) -> None:
        link, self._pid = _fork_agent(serve)
        super().__init__(link)

    def replaced(self, problem: NoAnswer) -> Caller:
        raise problem

    def close(self) -> None:
        super().close()
        if self._pid:
            try:
                os.waitpid(self._pid, 0)
            except ChildProcessError:
                pass  # reaped as an orphan
            self._pid = 0


class _Direct:
    """Our own daemon, over its control socket. Announced and not registered, a container is forgotten as we hang up."""

    told = False
    _OPS = {"prepare": "preregister"}

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ended = 0  # daemons, one after the other, that gave no answer

    def write(self, request: Request, *, again: bool) -> None:
        call = str(request["call"])
        self._connection.send({**request, "op": self._OPS.get(call, call), "hold": True, "again": again})

    def read(self) -> Answer:
        answer, _ = self._connection.receive()
        self._ended = 0
        return {**answer, "status": answer.get("code")}

    def replaced(self, problem: NoAnswer) -> Caller:
        """Its successor is as good."""
        self._ended += 1
        if not problem.ended or self._ended > _DAEMONS:
            raise problem
        self._connection.renew()
        return self

    def descriptors(self) -> list[int]:
        return []  # the connection is the launch's

    def close(self) -> None:
        pass


def open_link(root: str, serve: Serve | None, own: Connection | None = None) -> Link:
    """A link to the supervisor of the state root if there is one, else to our `own` daemon, else to an agent.

    The agent is a fork of us that runs `serve`.

    Raises:
        LaunchError: there is none of them.
    """

    def instead() -> Caller:
        if own is not None:
            return _Direct(own)
        if serve is None:
            raise failure("there is no supervisor that could make its calls")
        return _Agent(serve)

    try:
        link = tell.connect(root, patience=DEADLINE)
    except OSError:
        return Link(instead())
    return Link(_Supervisor(link, instead))


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

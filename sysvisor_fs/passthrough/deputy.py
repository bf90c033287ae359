"""Processes that enter what a thread cannot: a user namespace, or a pid namespace.

One for a user namespace is made when first asked for, answers in microseconds from then on, and leaves when nobody has
asked for a while. A pid namespace is entered for a single question: a process that stayed would keep the container's
init from ending. They are forks of a nursery, which was forked while the daemon had one thread: libraries with threads
have handlers that make a later fork anything but a copy with one thread (gRPC's start threads of their own in it).

A process in a pid namespace can be seen there, and stopped: nobody waits for one for longer than the deadline.
"""

from __future__ import annotations

import array
import atexit
import errno
import gc
import os
import select
import signal
import socket
from typing import TYPE_CHECKING

from sysvisor_fs.passthrough import instances, reach
from sysvisor_fs.passthrough.identity import error
from sysvisor_runc.kernel import namespaces as ns
from sysvisor_runc.kernel.signals import reset_signals
from sysvisor_runc.kernel.syscall import syscall

if TYPE_CHECKING:
    from collections.abc import Callable

IDLE_MS = 5_000
DEADLINE = 2.0  # seconds
MOST = 32  # that wait for the next question
_PACKET = 1 << 16
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME = 1, 4, 15
_NAME = b"sysvisor-fs-ns\0"
_nursery: list[socket.socket] = []


class Deputy:
    """A process inside one user namespace, by our end of the line to it; it leaves when that is closed."""

    __slots__ = ("line",)

    def __init__(self, line: socket.socket) -> None:
        self.line = line

    def ask(self, question: bytes) -> bytes:
        """Its answer.

        Raises:
            EOFError: it has left.
            OSError: what the kernel told it; ETIMEDOUT, nothing within the deadline.
        """
        try:
            self.line.send(question, socket.MSG_NOSIGNAL)
            answer = self.line.recv(_PACKET)
        except TimeoutError:
            raise error(errno.ETIMEDOUT)
        except (BrokenPipeError, ConnectionResetError):
            raise EOFError
        if not answer:
            raise EOFError
        return _unpack(answer)


# By the inode of the user namespace: a living deputy keeps it, so its number cannot come to mean another.
_waiting: dict[int, list[Deputy]] = {}


def in_user_namespace(userns: int, path: str, data: bytes | None = None) -> bytes:
    """Read a file below the procfs (or write `data` to it) in a user namespace, by descriptor."""
    question = _question(path, data)
    number = os.fstat(userns).st_ino
    for _ in range(MOST):
        deputy = _take(number) or Deputy(_make(userns))
        try:
            answer = deputy.ask(question)
        except EOFError:
            deputy.line.close()
            continue
        except OSError as problem:
            if problem.errno == errno.ETIMEDOUT:
                deputy.line.close()
            else:
                _give_back(number, deputy)
            raise
        _give_back(number, deputy)
        return answer
    raise error(errno.EIO)


def in_pid_namespace(userns: int, pidns: int, path: str, data: bytes | None = None) -> bytes:
    """As `in_user_namespace`, in a user and a pid namespace, once."""
    with _make(userns, pidns) as line:
        try:
            return Deputy(line).ask(_question(path, data))
        except EOFError:
            raise error(errno.EIO)


def reap() -> None:
    """Forget those that have left; to be called now and then."""
    for number in list(_waiting):
        for deputy in list(_waiting.get(number, ())):
            if _has_ended(deputy.line):
                try:
                    _waiting[number].remove(deputy)
                except (KeyError, ValueError):
                    continue  # another thread has taken it
                deputy.line.close()
        if not _waiting.get(number, True):
            _waiting.pop(number, None)


def is_able() -> bool:
    """Whether there is somebody yet to make them. Another nursery only another daemon can have."""
    return not _nursery or not _has_ended(_nursery[0])


def _has_ended(line: socket.socket) -> bool:
    """Whether who is at the other end has: nobody speaks unasked."""
    poll = select.poll()
    poll.register(line, select.POLLIN)
    return bool(poll.poll(0))


def _take(number: int) -> Deputy | None:
    try:
        return _waiting[number].pop()
    except (KeyError, IndexError):
        return None


def _give_back(number: int, deputy: Deputy) -> None:
    if sum(map(len, list(_waiting.values()))) >= MOST:
        deputy.line.close()
    else:
        _waiting.setdefault(number, []).append(deputy)


def _make(*namespaces: int) -> socket.socket:
    """A line to a new process in a user namespace, and a pid namespace if one is given."""
    prepare()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    with theirs:
        fds = array.array("i", (theirs.fileno(), *namespaces))
        try:
            _nursery[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        except OSError:
            ours.close()
            raise error(errno.EIO)  # it has ended: the next tick sees that, and says so
    ours.settimeout(DEADLINE)
    return ours


# --- questions and answers --------------------------------------------------------------------------------------------


def _question(path: str, data: bytes | None) -> bytes:
    return os.fsencode(path) + (b"" if data is None else b"\0" + data)


def _unpack(answer: bytes) -> bytes:
    number = int.from_bytes(answer[:4], "little")
    if number:
        raise error(number)
    return answer[4:]


def _answer(root: int, question: bytes) -> bytes:
    """In a deputy."""
    path, wants_to_write, data = question.partition(b"\0")
    try:
        if wants_to_write:
            reach.write(root, os.fsdecode(path), data)
            content = b""
        elif path.startswith(b"?"):
            content = b"%d" % reach.attributes(root, os.fsdecode(path[1:])).uid  # as it is called in here
        else:
            content = reach.read(root, os.fsdecode(path))
    except OSError as problem:
        return (problem.errno or errno.EIO).to_bytes(4, "little")
    return bytes(4) + content[: _PACKET - 4]


# --- the other processes ----------------------------------------------------------------------------------------------


def prepare() -> None:
    """Fork the nursery, once, and before the process has a second thread."""
    if _nursery:
        return
    root = instances.procfs()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    child = os.fork()
    if child == 0:
        _and_end(lambda: _nurse(theirs.fileno(), root))
    theirs.close()
    _nursery.append(ours)
    me = os.getpid()

    def end() -> None:
        if os.getpid() == me:  # and not a fork of ours
            for deputy in (one for several in list(_waiting.values()) for one in list(several)):
                deputy.line.close()
            ours.close()
            _wait_or_kill(child, DEADLINE + 1)

    atexit.register(end)


def _and_end(work: Callable[[], None]) -> None:
    try:
        work()
    finally:
        os._exit(0)


def _nurse(line: int, root: int) -> None:
    """Fork for whoever asks, until the daemon is gone."""
    gc.disable()  # what the daemon has is not ours to finalize
    low, high = sorted((line, root))
    os.closerange(0, low)
    os.closerange(low + 1, high)
    os.closerange(high + 1, os.sysconf("SC_OPEN_MAX"))
    reset_signals()
    # Nobody of the namespaces that are entered may look into a copy of the daemon's memory.
    syscall("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0, operand="PR_SET_DUMPABLE")
    syscall("prctl", _PR_SET_NAME, _NAME, 0, 0, 0, operand="PR_SET_NAME")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that leave
    with socket.socket(fileno=line) as requests:
        while True:
            data, ancillary, _, _ = requests.recvmsg(1, socket.CMSG_SPACE(12))
            if not data:
                _wait_for_all()
                return
            fds = array.array("i")
            for _, _, content in ancillary:
                fds.frombytes(content)
            try:
                child = os.fork()
            except OSError:
                child = -1  # as many as there may be: whoever asked sees that nobody came
            if child == 0:
                os.close(line)
                _and_end(lambda fds=fds: _enter(root, *fds))  # type: ignore[misc]  # bound at once
            for fd in fds:
                os.close(fd)


def _wait_or_kill(child: int, seconds: float) -> None:
    """Wait for a child of ours; one that takes longer is killed, which works on a stopped one too."""
    pidfd = os.pidfd_open(child)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not poll.poll(seconds * 1000):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    os.waitpid(child, 0)


def _after_entering() -> None:
    """What a change of credentials undoes (prctl(2)): we end with our parent, and nobody in here may trace us, not
    even where fs.suid_dumpable lets them.
    """
    syscall("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0, operand="PR_SET_DUMPABLE")
    syscall("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0, operand="PR_SET_PDEATHSIG")


def _wait_for_all() -> None:
    """Children that are ignored are waited for together."""
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        pass


def _enter(root: int, line: int, userns: int, pidns: int = -1) -> None:
    """In a fork: go there, and answer."""
    if pidns >= 0:
        ns.setns(pidns, ns.CLONE_NEWPID, operand="pid")
    ns.setns(userns, ns.CLONE_NEWUSER, operand="user")
    _after_entering()
    if pidns < 0:
        _serve(root, line)
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()  # only a child is in there
    if child == 0:
        _and_end(lambda: _once(root, line))
    os.close(line)
    _wait_or_kill(child, DEADLINE)


def _serve(root: int, line: int) -> None:
    """Answer until nobody has asked for a while, or the daemon is gone."""
    poll = select.poll()
    poll.register(line, select.POLLIN)
    while poll.poll(IDLE_MS):
        question = os.read(line, _PACKET)
        if not question:
            return
        os.write(line, _answer(root, question))


def _once(root: int, line: int) -> None:
    """Answer one question, where others may stop us."""
    _after_entering()
    question = os.read(line, _PACKET)
    if question:
        os.write(line, _answer(root, question))

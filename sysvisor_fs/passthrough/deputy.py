"""Processes that enter what a thread cannot: a user namespace, or a pid namespace.

One for a user namespace is made when first asked for, answers in microseconds from then on, and leaves when nobody has
asked for a while. A pid namespace is entered for a single question: a process that stayed would keep the container's
init from ending. They are forks of the daemon that keep none of its descriptors.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import signal
import socket
from typing import TYPE_CHECKING

from sysvisor_fs.passthrough import instances, reach
from sysvisor_fs.passthrough.identity import error, inode, open_namespace
from sysvisor_runc.kernel import namespaces as ns
from sysvisor_runc.kernel.signals import reset_signals
from sysvisor_runc.kernel.syscall import syscall

if TYPE_CHECKING:
    from collections.abc import Callable

IDLE_MS = 5_000
DEADLINE = 2.0  # seconds
MOST = 32  # that wait for the next question
_PACKET = 1 << 16
_PR_SET_DUMPABLE, _PR_SET_NAME = 4, 15
_NAME = b"sysvisor-fs\0"


class Deputy:
    """A process inside one user namespace, and our end of the line to it."""

    __slots__ = ("line", "pid")

    def __init__(self, pid: int, line: socket.socket) -> None:
        self.pid = pid
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

    def end(self) -> None:
        """It is of no more use."""
        self.line.close()
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        _leaving.add(self.pid)
        reap()


# By the inode of the user namespace: a living deputy keeps it, so its number cannot come to mean another.
_waiting: dict[int, list[Deputy]] = {}
_leaving: set[int] = set()


def in_user_namespace(pid: int, path: str, data: bytes | None = None) -> bytes:
    """Read a file below the procfs (or write `data` to it) in the user namespace of a task."""
    question = _question(path, data)
    number = inode(pid, "user")
    for _ in range(MOST):
        deputy = _take(number) or _make(pid, number)
        try:
            answer = deputy.ask(question)
        except EOFError:
            deputy.end()
            continue
        except OSError as problem:
            if problem.errno == errno.ETIMEDOUT:
                deputy.end()
            else:
                _give_back(number, deputy)
            raise
        _give_back(number, deputy)
        return answer
    raise error(errno.EIO)


def in_pid_namespace(pid: int, path: str, data: bytes | None = None) -> bytes:
    """As `in_user_namespace`, in the user and pid namespaces of a task, once."""
    question = _question(path, data)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    with ours, theirs:
        spaces = [open_namespace(pid, "pid"), open_namespace(pid, "user")]
        try:
            child = _fork(lambda: _once(theirs.fileno(), spaces, question), {theirs.fileno(), *spaces})
        finally:
            for fd in spaces:
                os.close(fd)
        theirs.close()
        try:
            ours.settimeout(DEADLINE)
            answer = ours.recv(_PACKET)
        except TimeoutError:
            raise error(errno.ETIMEDOUT)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if not answer:
        raise error(errno.EIO)
    return _unpack(answer)


def reap() -> None:
    """Collect those that have left; to be called now and then."""
    for number in list(_waiting):
        for deputy in list(_waiting.get(number, ())):
            if select.select([deputy.line], [], [], 0)[0]:  # nobody speaks unasked: it has left
                try:
                    _waiting[number].remove(deputy)
                except (KeyError, ValueError):
                    continue  # another thread has taken it
                deputy.line.close()
                _leaving.add(deputy.pid)
        if not _waiting.get(number, True):
            _waiting.pop(number, None)
    for pid in list(_leaving):
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                _leaving.discard(pid)
        except ChildProcessError:
            _leaving.discard(pid)


def _take(number: int) -> Deputy | None:
    try:
        return _waiting[number].pop()
    except (KeyError, IndexError):
        return None


def _give_back(number: int, deputy: Deputy) -> None:
    if sum(map(len, list(_waiting.values()))) >= MOST:
        deputy.end()
    else:
        _waiting.setdefault(number, []).append(deputy)


def _make(pid: int, number: int) -> Deputy:
    reap()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    with theirs:
        space = open_namespace(pid, "user")
        try:
            if os.fstat(space).st_ino != number:
                raise error(errno.ESRCH)
            child = _fork(lambda: _serve(theirs.fileno(), space), {theirs.fileno(), space})
        except OSError:
            ours.close()
            raise
        finally:
            os.close(space)
    ours.settimeout(DEADLINE)
    return Deputy(child, ours)


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


# --- the other process ------------------------------------------------------------------------------------------------


def _fork(work: Callable[[], None], keep: set[int]) -> int:
    """A child that keeps these descriptors only, does the work and ends."""
    keep = {*keep, instances.procfs()}
    child = os.fork()
    if child:
        return child
    try:
        gc.disable()  # what the daemon has is not ours to finalize
        last = 2
        for fd in sorted(keep):
            os.closerange(last + 1, fd)
            last = fd
        os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))
        reset_signals()
        # Nobody of the namespaces that are entered may look into a copy of the daemon's memory.
        syscall("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0, operand="PR_SET_DUMPABLE")
        syscall("prctl", _PR_SET_NAME, _NAME, 0, 0, 0, operand="PR_SET_NAME")
        work()
    finally:
        os._exit(0)


def _serve(line: int, userns: int) -> None:
    """Answer until nobody has asked for a while, or the daemon is gone."""
    ns.setns(userns, ns.CLONE_NEWUSER, operand="user")
    os.close(userns)
    poll = select.poll()
    poll.register(line, select.POLLIN)
    while poll.poll(IDLE_MS):
        question = os.read(line, _PACKET)
        if not question:
            return
        os.write(line, _answer(instances.procfs(), question))


def _once(line: int, spaces: list[int], question: bytes) -> None:
    """Answer one question from inside a pid namespace, which only a child enters."""
    pidns, userns = spaces
    ns.setns(pidns, ns.CLONE_NEWPID, operand="pid")
    ns.setns(userns, ns.CLONE_NEWUSER, operand="user")
    child = os.fork()
    if child == 0:
        try:
            os.write(line, _answer(instances.procfs(), question))
        finally:
            os._exit(0)
    os.waitpid(child, 0)

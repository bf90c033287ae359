"""Make the signals that end a command an exception where a launch waits, so that what it took is undone.

They are blocked and read from a descriptor: none can hit between something being acquired and being noted for undoing,
and none is lost between a look and the wait that follows it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of signal has no stub
import os
import select

from sysvisor_runc.errors import SysvisorError
from sysvisor_runc.kernel.signals import heeded, signalfd

_ENDING = {1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 15: "SIGTERM"}
_held: list[int] = []
_fd = -1


class Interrupted(SysvisorError):
    """A signal asked the command to end; the exit code is the shell's, 128+n."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {_ENDING[number]}", exit_code=128 + number)


def hold_back() -> None:
    """From here on SIGHUP, SIGINT, SIGQUIT and SIGTERM raise Interrupted where `check` or `wait_readable` is called.

    Those that our caller has us ignore stay ignored (nohup(1)).
    """
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _ENDING)
    _held[:] = heeded([*_ENDING])


def descriptor() -> int:
    """What can be read once a signal has come, for a poll of one's own; -1 where they are not held back."""
    global _fd
    if _held and _fd < 0:
        _fd = signalfd(_held)
    return _fd


def check() -> None:
    """Raise Interrupted if a signal has come."""
    if _fd < 0 and _signal.sigpending().isdisjoint(_held):
        return
    fd = descriptor()
    if fd < 0:
        return
    try:
        data = os.read(fd, 128)
    except BlockingIOError:
        return
    raise Interrupted(int.from_bytes(data[:4], "little"))


def wait_readable(fd: int, patience: float | None = None) -> bool:
    """Wait until `fd` can be read or is at its end; what has come already is worth more than a signal.

    False: nothing has come within `patience` seconds.

    Raises:
        Interrupted: a signal came first.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if descriptor() >= 0:
        poll.register(descriptor(), select.POLLIN)
    while fd not in (ready := dict(poll.poll(None if patience is None else patience * 1000))):
        check()
        if not ready:
            return False
    return True

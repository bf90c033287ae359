"""The ends of many processes as one source of the loop, edge-triggered, through their pidfds.

A pidfd says POLLIN once the process is dead and, since Linux 6.15, POLLHUP once it has been reaped as well; it stays
so for good. The loop's own watching is level-triggered: a zombie, which somebody else may take his time to reap, would
spin it. So all pidfds are in an epoll instance of their own, whose descriptor the loop watches as the only one.
"""

from __future__ import annotations

import os
import select

from sysvisor_runc.kernel.pidfd import pidfd_get_info
from sysvisor_runc.state.process import zombie_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.aio.loop import AbstractEventLoop


class ExitWatch:
    """Calls `happened(pidfd, reaped)` when a watched process dies and again when it is reaped, or once for both."""

    def __init__(self, loop: AbstractEventLoop, happened: Callable[[int, bool], None]) -> None:
        self._loop = loop
        self._happened = happened
        self._epoll = select.epoll()
        loop.add_reader(self._epoll.fileno(), self.catch_up)

    def watch(self, pidfd: int) -> None:
        """Watch one more; it stays the caller's. One that is dead already is told at the next turn."""
        self._epoll.register(pidfd, select.EPOLLIN | select.EPOLLET)

    def forget(self, pidfd: int) -> None:
        """Watch it no more."""
        try:
            self._epoll.unregister(pidfd)
        except OSError:
            pass  # closed already

    def close(self) -> None:
        """Watch nobody any more."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def catch_up(self) -> None:
        """Tell what has happened up to now: before it is told what came of it."""
        for fd, events in self._epoll.poll(0):
            self._happened(fd, bool(events & select.EPOLLHUP))


def wait_status(pidfd: int, pid: int, start: int) -> int | None:
    """How the dead process behind `pidfd`, which had `pid` and began at `start`, ended, as wait(2) tells it; None where
    that cannot be known, or not yet. It is reaped if it is our child.
    """
    status = _reaped(pidfd)
    if status is None:
        status = _told(pidfd)
    if status is None:
        status = zombie_status(pid, start)
    # Reaped between the two questions.
    return _told(pidfd) if status is None else status


def _reaped(pidfd: int) -> int | None:
    try:
        found = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except OSError:
        return None  # not our child
    if found is None:
        return None
    # CLD_DUMPED has the core bit beside the signal
    return found.si_status << 8 if found.si_code == os.CLD_EXITED else found.si_status


def _told(pidfd: int) -> int | None:
    try:
        return pidfd_get_info(pidfd).wait_status
    except OSError:
        return None

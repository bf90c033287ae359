"""The ends of many processes as one source of the loop, edge-triggered, through their pidfds.

A pidfd says POLLIN once the process is dead and, since Linux 6.15, POLLHUP once it has been reaped as well; it stays
so for good. The loop's own watching is level-triggered: a zombie, which somebody else may take his time to reap, would
spin it. So all pidfds are in an epoll instance of their own, whose descriptor the loop watches as the only one.

Before 6.15 nothing is left of a process that somebody else has reaped, as systemd does at once. There the process
events connector tells how it ended.
"""

from __future__ import annotations

import os
import select

from sysvisor_runc import log
from sysvisor_runc.kernel.pidfd import pidfd_get_info
from sysvisor_runc.kernel.proc_connector import ProcConnector
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
        self._pids: dict[int, int] = {}
        self._connector = _connector()
        loop.add_reader(self._epoll.fileno(), self.catch_up)
        if self._connector is not None:
            loop.add_reader(self._connector.fileno(), self._connector.read)

    def watch(self, pidfd: int, pid: int) -> None:
        """Watch one more; it stays the caller's. One that is dead already is told at the next turn."""
        self._pids[pidfd] = pid
        if self._connector is not None:
            self._connector.watch(pid)
        self._epoll.register(pidfd, select.EPOLLIN | select.EPOLLET)

    def forget(self, pidfd: int) -> None:
        """Watch it no more."""
        pid = self._pids.pop(pidfd, None)
        if self._connector is not None and pid is not None:
            self._connector.forget(pid)
        try:
            self._epoll.unregister(pidfd)
        except OSError:
            pass  # closed already

    def close(self) -> None:
        """Watch nobody any more."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            if self._connector is not None:
                self._loop.remove_reader(self._connector.fileno())
                self._connector.close()

    def catch_up(self) -> None:
        """Tell what has happened up to now: before it is told what came of it."""
        for fd, events in self._epoll.poll(0):
            self._happened(fd, bool(events & select.EPOLLHUP))

    def wait_status(self, pidfd: int, pid: int, start: int) -> int | None:
        """How the dead process behind `pidfd`, which had `pid` and began at `start`, ended, as wait(2) tells it; None
        where that cannot be known, or not yet. It is reaped if it is our child.
        """
        status = _reaped(pidfd)
        if status is None:
            status = _told(pidfd)
        if status is None:
            status = zombie_status(pid, start)
        if status is None and self._connector is not None:
            return self._connector.wait_status(pid)
        # Reaped between the two questions.
        return _told(pidfd) if status is None else status


def _connector() -> ProcConnector | None:
    """Where it is needed, and to be had."""
    try:
        return None if _kernel_keeps_status() else ProcConnector()
    except OSError as error:
        log.debug(f"process events: {error}")
        return None


def _kernel_keeps_status() -> bool:
    """Whether a pidfd tells of a process that somebody has reaped (Linux 6.15)."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    pidfd = os.pidfd_open(pid)
    try:
        os.waitpid(pid, 0)
        return _told(pidfd) is not None
    finally:
        os.close(pidfd)


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

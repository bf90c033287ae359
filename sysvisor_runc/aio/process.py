"""The end of a process as a source of the loop, through its pidfd: no SIGCHLD, no table of children, no reused pid."""

from __future__ import annotations

import os

from sysvisor_runc.kernel.pidfd import pidfd_get_info

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.aio.loop import AbstractEventLoop


class ExitSource:
    """Calls `ended()` once, when the process behind `pidfd`, which stays the caller's, has ended."""

    __slots__ = ("_ended", "_loop", "_pidfd")

    def __init__(self, loop: AbstractEventLoop, pidfd: int, ended: Callable[[], None]) -> None:
        self._loop = loop
        self._pidfd = pidfd
        self._ended = ended
        loop.add_reader(pidfd, self._readable)

    def _readable(self) -> None:
        # A pidfd stays readable for good: watched on, a zombie would spin the loop.
        self.close()
        self._ended()

    def close(self) -> None:
        """Stop watching."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            self._pidfd = -1


def exit_code(pidfd: int) -> int | None:
    """Reap the ended process behind `pidfd`: its exit code, 128+n where a signal ended it, None where unknown.

    It is unknown only of a process that somebody else has reaped, on a kernel before 6.15.
    """
    try:
        found = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    except ChildProcessError:
        return _told_by_kernel(pidfd)
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else 128 + found.si_status


def _told_by_kernel(pidfd: int) -> int | None:
    try:
        status = pidfd_get_info(pidfd).wait_status
    except OSError:
        return None
    if status is None:
        return None
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code

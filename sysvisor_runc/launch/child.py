"""A process that we cloned and may wait for, by pidfd. Imports kernel only."""

from __future__ import annotations

import os

from sysvisor_runc.kernel.syscall import syscall


class Child:
    """A process that we cloned: `pid`, and `pidfd` while it is open."""

    __slots__ = ("pid", "pidfd")

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd

    def kill(self) -> None:
        """Kill and reap it; fine if it is dead already."""
        try:
            syscall("pidfd_send_signal", self.pidfd, 9, 0, 0)
        except ProcessLookupError:
            pass
        except OSError as error:
            if error.errno != 3:  # ESRCH
                raise
        self.reap()

    def reap(self) -> int:
        """Wait for its end; the wait status, 0 where somebody else has reaped it."""
        try:
            return os.waitpid(self.pid, 0)[1]
        except ChildProcessError:
            return 0

    def close(self) -> None:
        """Close the pidfd."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

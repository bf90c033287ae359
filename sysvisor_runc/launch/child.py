"""A process that we cloned and may wait for, by pidfd. Imports kernel only."""

from __future__ import annotations

import os

from sysvisor_runc.kernel.pidfd import pidfd_send_signal

_SIGINT, _SIGTERM = 2, 15
_ENDING = (1, _SIGINT, 3, _SIGTERM)  # SIGHUP and SIGQUIT as well


class Child:
    """A process that we cloned: `pid`, and `pidfd` while it is open.

    `stop_signal` is what asks it for an orderly end where SIGTERM does not; None: SIGTERM does. `asked`: a signal that
    asks for its end has been forwarded.
    """

    __slots__ = ("asked", "pid", "pidfd", "stop_signal")

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.stop_signal: int | None = None
        self.asked = False

    def forward(self, number: int) -> None:
        """Pass on a signal that we got. Fine if it has ended, which its pidfd says next.

        Whoever interrupts or terminates us wants a container with an init system to shut down, as with systemd-nspawn;
        systemd itself would take SIGTERM for "execute yourself anew" and SIGINT for Ctrl-Alt-Del, a reboot.
        """
        self.asked = self.asked or number in _ENDING
        if self.stop_signal is not None and number in (_SIGINT, _SIGTERM):
            number = self.stop_signal
        try:
            pidfd_send_signal(self.pidfd, number)
        except OSError:
            pass  # it has ended, or it is not ours to signal any more

    def kill(self) -> None:
        """Kill and reap it; fine if it is dead already."""
        try:
            pidfd_send_signal(self.pidfd, 9)
        except ProcessLookupError:
            pass
        except OSError as error:
            if error.errno != 3:  # ESRCH
                raise
        self.reap()

    def replace(self, pid: int) -> None:
        """Reap it, and be its child `pid` from now on, which is ours as well (CLONE_PARENT)."""
        pidfd = os.pidfd_open(pid)
        self.reap()
        self.close()
        self.pid, self.pidfd = pid, pidfd

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

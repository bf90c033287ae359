"""Wait for a container's init in the foreground without a terminal: signals in, exit code out. No asyncio."""

from __future__ import annotations

import os
import select

from sysvisor_runc.kernel import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.launch.child import Child

_SIGCHLD, _SIGURG, _SIGPIPE, _SIGWINCH = 17, 23, 13, 28
# Ours to handle, or nobody's business in the container.
_NOT_FORWARDED = (_SIGCHLD, _SIGURG, _SIGPIPE)


def wait_forwarding(child: Child, signal_fd: int) -> int:
    """Forward every signal that we get to `child` until it ends; its exit code, 128+n for a signal.

    The caller has blocked the signals that `signal_fd` reads.
    """
    poll = select.poll()
    poll.register(child.pidfd, select.POLLIN)
    poll.register(signal_fd, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == child.pidfd:
                return exit_code(child.reap())
            forward(child, signal_fd)


def forward(child: Child, signal_fd: int) -> None:
    """Forward the signals that have come, but for what is ours."""
    data = os.read(signal_fd, 128 * 16)
    for offset in range(0, len(data), 128):
        number = int.from_bytes(data[offset : offset + 4], "little")
        if number == _SIGCHLD:
            reap_orphans(child)
        elif number not in _NOT_FORWARDED:
            child.forward(number)


def reap_orphans(child: Child) -> None:
    """As a subreaper we inherit what detaches itself in the container without a pid namespace."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid == child.pid:
            return
        os.waitpid(found.si_pid, 0)


def exit_code(status: int) -> int:
    """The exit code for a wait status, as a shell reports it."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def forwarded_signals() -> int:
    """Block every signal and return the descriptor that reads them, but for those that our caller had us ignore.

    SIGHUP under nohup(1) is nothing to the container either; blocked, it would be read all the same.
    """
    signals.block_all()
    return signals.signalfd(signals.heeded(signals.all_signals()))

"""Signals as a source of the loop, through signalfd(2).

A signalfd is one descriptor among the others: no handler interrupts anything, and none can be lost between a check and
a wait. Its price is that every thread must have the signals blocked, so they are blocked before a thread can exist, and
a child unblocks them before its execve (kernel.signals.reset_signals).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.aio.loop import AbstractEventLoop

_SIGINFO = 128  # struct signalfd_siginfo; its first u32 is the signal's number
_AT_ONCE = 16


class SignalSource:
    """Calls `received(number)` for each signal that `signal_fd`, whose owner it becomes, reads."""

    __slots__ = ("_fd", "_loop", "_received")

    def __init__(self, loop: AbstractEventLoop, signal_fd: int, received: Callable[[int], None]) -> None:
        self._loop = loop
        self._fd = signal_fd
        self._received = received
        loop.add_reader(signal_fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _SIGINFO * _AT_ONCE)
        except BlockingIOError:
            return
        for offset in range(0, len(data), _SIGINFO):
            self._received(int.from_bytes(data[offset : offset + 4], "little"))

    def close(self) -> None:
        """Stop and close the descriptor; the signals stay blocked."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

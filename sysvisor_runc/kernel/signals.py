"""Signal dispositions, masks and signalfd(2), without the signal module, which loads enum.

`kernel.syscall` is imported in functions: `start` needs none of those.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of signal has no stub

SFD_CLOEXEC = 0o2000000
SFD_NONBLOCK = 0o4000
_SIGKILL, _SIGSTOP = 9, 19
# What cannot be blocked, or must not be: faults of our own.
_FAULTS = frozenset((4, 5, 7, 8, 9, 11, 19))
_C_LIBRARY = frozenset((32, 33))
NSIG = 65


def reset_signals() -> None:
    """Default dispositions and an empty mask, as a program expects to be started with.

    Ignored signals stay ignored over execve(2), and Python ignores SIGPIPE and SIGXFSZ.
    """
    from sysvisor_runc.kernel.syscall import syscall

    for number in range(1, NSIG):
        if number in (_SIGKILL, _SIGSTOP):
            continue
        if number in _C_LIBRARY:
            # The library refuses to touch its own signals, and a caller may have ignored them all the same: struct
            # sigaction of the kernel with SIG_DFL is four zero words, its mask has eight bytes (rt_sigaction(2)).
            syscall("rt_sigaction", number, bytes(32), 0, 8)
        else:
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def block_all() -> None:
    """Block every signal but those that report a fault of this process."""
    _signal.pthread_sigmask(_signal.SIG_SETMASK, all_signals())


def signalfd(numbers: list[int]) -> int:
    """A descriptor that reads the given signals, which must be blocked; close-on-exec, non-blocking (signalfd(2)).

    Each read gives struct signalfd_siginfo of 128 bytes; the first u32 is the signal's number.
    """
    from sysvisor_runc.kernel.syscall import syscall

    mask = sum(1 << (number - 1) for number in numbers)
    return syscall("signalfd4", -1, mask.to_bytes(8, "little"), 8, SFD_CLOEXEC | SFD_NONBLOCK)


def heeded(numbers: list[int]) -> list[int]:
    """Those of `numbers` that are not ignored."""
    return [n for n in numbers if _signal.getsignal(n) != _signal.SIG_IGN]


def all_signals() -> list[int]:
    """Every signal that can be blocked and is no fault of ours."""
    return [n for n in range(1, NSIG) if n not in _FAULTS and n not in _C_LIBRARY]

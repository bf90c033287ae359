"""System calls made under a seccomp filter, by a forked child that can be killed for them."""

import ctypes
import os
import signal
import struct

from sysvisor_runc.kernel import seccomp as kernel
from sysvisor_runc.kernel.libseccomp import seccomp_syscall_resolve_name
from sysvisor_runc.plan.seccomp_cache import Filter

# What an interpreter needs to make a call and tell its outcome.
ESSENTIAL = ["write", "exit_group", "brk", "mmap", "munmap", "futex", "rt_sigreturn", "restart_syscall"]
PR_SET_NO_NEW_PRIVS = 38
LIFETIME_S = 20

_libc = ctypes.CDLL(None, use_errno=True)


class Call:
    """A system call by name or number; arguments are unsigned 64-bit values, those left out are 0."""

    def __init__(self, call: str | int, *args: int) -> None:
        number = seccomp_syscall_resolve_name(call) if isinstance(call, str) else call
        assert number is not None, call
        self.number = number
        self.args = [ctypes.c_ulong(value) for value in (*args, *[0] * (6 - len(args)))]

    def errno(self) -> int:
        """Make it, here and now; 0 for success."""
        ctypes.set_errno(0)
        return ctypes.get_errno() if _libc.syscall(ctypes.c_long(self.number), *self.args) == -1 else 0


def load(filter_: Filter) -> int:
    """Put this process, a forked child, under the filter, as root or not.

    A wrong filter may deny it even exit_group(2), at which the C library spins: it is then ended by SIGALRM.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LIFETIME_S)
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return kernel.set_mode_filter(filter_.bpf, filter_.flags)


def outcome(filter_: Filter, *calls: Call) -> tuple[list[int], int]:
    """The errno of each call, made in order by a child under the filter, and the child's wait status."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            load(filter_)
            for call in calls:
                os.write(writer, struct.pack("i", call.errno()))
            os._exit(0)
        finally:
            os._exit(99)
    os.close(writer)
    with open(reader, "rb") as stream:
        data = stream.read()
    status = os.waitpid(child, 0)[1]
    return [value for (value,) in struct.iter_unpack("i", data)], status


def errnos(filter_: Filter, *calls: Call) -> list[int]:
    """The errno of each call under the filter; the child must survive them all."""
    result, status = outcome(filter_, *calls)
    assert status == 0, f"wait status {status:#x} after {result}"
    return result

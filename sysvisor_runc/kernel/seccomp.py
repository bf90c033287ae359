"""seccomp(2): constants as in <linux/seccomp.h>, and loading a filter that is already BPF.

No policy, and nothing of how a filter is made: the child runs this after the seal, with bytes handed to it.
"""

from __future__ import annotations

import errno
import struct

from sysvisor_runc.kernel.syscall import SyscallError, address, buffer, syscall

SECCOMP_SET_MODE_STRICT = 0
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_ACTION_AVAIL = 2
SECCOMP_GET_NOTIF_SIZES = 3

SECCOMP_FILTER_FLAG_TSYNC = 1 << 0
SECCOMP_FILTER_FLAG_LOG = 1 << 1  # 4.14
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1 << 2  # 4.17
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3  # 5.0
SECCOMP_FILTER_FLAG_TSYNC_ESRCH = 1 << 4  # 5.7
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5  # 5.19, only together with NEW_LISTENER

SECCOMP_RET_KILL_PROCESS = 0x80000000
SECCOMP_RET_KILL_THREAD = 0x00000000
SECCOMP_RET_TRAP = 0x00030000
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_USER_NOTIF = 0x7FC00000
SECCOMP_RET_TRACE = 0x7FF00000
SECCOMP_RET_LOG = 0x7FFC0000
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_DATA = 0x0000FFFF

BPF_MAXINSNS = 4096
SOCK_FILTER_SIZE = 8


def set_mode_filter(bpf: bytes, flags: int) -> int:
    """Put the calling thread under `bpf`, an array of struct sock_filter.

    Returns the listener, close-on-exec, with SECCOMP_FILTER_FLAG_NEW_LISTENER, else 0. Needs no_new_privs or
    CAP_SYS_ADMIN in the caller's user namespace.

    Raises:
        SyscallError: EACCES without that privilege, EINVAL for a malformed filter or an unknown flag, EBUSY where a
            filter already has a listener, ENOMEM where all filters together exceed 32768 instructions.
    """
    program = buffer(len(bpf))
    memoryview(program).cast("B")[:] = bpf
    # struct sock_fprog { unsigned short len; struct sock_filter *filter; }: native alignment puts the pointer behind
    # padding (6 bytes on 64 bit, 2 on 32 bit), which "@" does for us.
    fprog = struct.pack("@HP", len(bpf) // SOCK_FILTER_SIZE, address(program))
    return syscall("seccomp", SECCOMP_SET_MODE_FILTER, flags, fprog, operand="SECCOMP_SET_MODE_FILTER")


def action_available(action: int) -> bool:
    """Whether the kernel knows the SECCOMP_RET_* value `action` (SECCOMP_GET_ACTION_AVAIL, 4.14)."""
    try:
        syscall("seccomp", SECCOMP_GET_ACTION_AVAIL, 0, struct.pack("@I", action), operand="SECCOMP_GET_ACTION_AVAIL")
    except SyscallError:
        return False
    return True


def flag_supported(flag: int) -> bool:
    """Whether the kernel knows the SECCOMP_FILTER_FLAG_* bit `flag`.

    The kernel looks at the flags before it reads the filter: with a null filter a known flag fails with EFAULT and
    an unknown one with EINVAL. Nothing is ever loaded.
    """
    if flag == SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV:
        flag |= SECCOMP_FILTER_FLAG_NEW_LISTENER
    try:
        syscall("seccomp", SECCOMP_SET_MODE_FILTER, flag, 0, operand="SECCOMP_SET_MODE_FILTER")
    except SyscallError as error:
        return error.errno == errno.EFAULT
    return False

"""Processes by file descriptor: pidfd_open, pidfd_send_signal, PIDFD_GET_INFO and pidfd file handles.

Wrappers only, no policy: who may be signalled and when a pid is believed is decided in `state.process`. The module
`kernel.syscall` is imported in functions: most commands need only what the interpreter itself has.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal  # the same functions, and typeshed knows it
else:
    import _signal

# include/uapi/linux/pidfd.h
PIDFD_INFO_PID = 1 << 0
PIDFD_INFO_CREDS = 1 << 1
PIDFD_INFO_CGROUPID = 1 << 2
PIDFD_INFO_EXIT = 1 << 3
PIDFD_INFO_SIZE_VER0 = 64
# _IOWR(PIDFS_IOCTL_MAGIC 0xFF, 11, struct pidfd_info): direction 3, then the size, the magic, the number.
PIDFD_GET_INFO = 3 << 30 | PIDFD_INFO_SIZE_VER0 << 16 | 0xFF << 8 | 11

AT_EMPTY_PATH = 0x1000
O_CLOEXEC = 0o2000000

# struct file_handle is two ints, handle_bytes and handle_type, then the handle itself.
_HANDLE_HEADER = 8
_HANDLE_ROOM = 128  # MAX_HANDLE_SZ


class PidfdInfo:
    """What the kernel tells about a process behind a pidfd; a field is None where it did not say.

    Attributes:
        pid: process id (tgid) in the caller's pid namespace.
        ppid: its parent's.
        uid: effective user id, in the caller's user namespace.
        gid: effective group id.
        cgroupid: id of its cgroup in the unified hierarchy.
        wait_status: how it ended, as wait(2) reports it.
    """

    __slots__ = ("cgroupid", "gid", "pid", "ppid", "uid", "wait_status")

    def __init__(self, raw: bytes) -> None:
        mask = int.from_bytes(raw[0:8], "little")
        alive = bool(mask & PIDFD_INFO_PID)
        creds = bool(mask & PIDFD_INFO_CREDS)
        self.pid = _u32(raw, 20) if alive else None
        self.ppid = _u32(raw, 24) if alive else None
        self.uid = _u32(raw, 36) if creds else None
        self.gid = _u32(raw, 40) if creds else None
        self.cgroupid = int.from_bytes(raw[8:16], "little") if mask & PIDFD_INFO_CGROUPID else None
        self.wait_status = _u32(raw, 60) if mask & PIDFD_INFO_EXIT else None


def _u32(raw: bytes, offset: int) -> int:
    return int.from_bytes(raw[offset : offset + 4], "little")


def pidfd_open(pid: int, flags: int = 0) -> int:
    """pidfd_open(2): a close-on-exec descriptor of process `pid` (Linux 5.3). ESRCH where there is none."""
    return os.pidfd_open(pid, flags)


def pidfd_send_signal(pidfd: int, sig: int) -> None:
    """pidfd_send_signal(2): ESRCH when the process has been reaped; a zombie swallows any signal (Linux 5.1)."""
    _signal.pidfd_send_signal(pidfd, sig)


def pidfd_get_info(pidfd: int) -> PidfdInfo:
    """The PIDFD_GET_INFO ioctl (Linux 6.13; `wait_status` since 6.15).

        0  u64 mask        asked for on the way in, present on the way out
        8  u64 cgroupid
       16  u32 pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid
       60  s32 exit_code   the wait status, only once the process has been reaped

    Raises:
        OSError: ESRCH, reaped and nothing known; EINVAL or ENOTTY, an older kernel.
    """
    from sysvisor_runc.kernel.syscall import buffer, syscall

    wanted = PIDFD_INFO_PID | PIDFD_INFO_CREDS | PIDFD_INFO_CGROUPID | PIDFD_INFO_EXIT
    info = buffer(PIDFD_INFO_SIZE_VER0)
    info[0] = wanted
    syscall("ioctl", pidfd, PIDFD_GET_INFO, info, operand="PIDFD_GET_INFO")
    return PidfdInfo(bytes(info))


def name_to_handle_at(pidfd: int) -> bytes:
    """The file handle of a pidfd, by which the same process can be opened again (Linux 6.14).

    The result is the whole `struct file_handle`, as `open_by_handle_at` takes it. On 64-bit kernels a handle is never
    given out twice between boots.

    Raises:
        OSError: EOPNOTSUPP on an older kernel.
    """
    from sysvisor_runc.kernel.syscall import buffer, syscall

    handle = buffer(_HANDLE_HEADER + _HANDLE_ROOM)
    handle[0] = _HANDLE_ROOM
    mount_id = buffer(8)
    syscall("name_to_handle_at", pidfd, b"\0", handle, mount_id, AT_EMPTY_PATH, operand="a pidfd")
    raw = bytes(handle)
    return raw[: _HANDLE_HEADER + int.from_bytes(raw[:4], "little")]


def open_by_handle_at(pidfs_fd: int, handle: bytes) -> int:
    """Open the process that a pidfd's file handle names; `pidfs_fd` is any pidfd (Linux 6.14).

    Raises:
        OSError: ESTALE, the process has been reaped; EOPNOTSUPP on an older kernel.
    """
    from sysvisor_runc.kernel.syscall import SyscallError, syscall

    if len(handle) < _HANDLE_HEADER or int.from_bytes(handle[:4], "little") != len(handle) - _HANDLE_HEADER:
        raise SyscallError(errno.EINVAL, "open_by_handle_at", "malformed handle")
    return syscall("open_by_handle_at", pidfs_fd, handle, O_CLOEXEC, operand="a pidfd handle")


def pidfd_getfd(pidfd: int, targetfd: int) -> int:
    """A duplicate of descriptor `targetfd` of the process behind `pidfd`, close-on-exec (pidfd_getfd(2), Linux 5.6)."""
    from sysvisor_runc.kernel.syscall import syscall

    return syscall("pidfd_getfd", pidfd, targetfd, 0, operand=str(targetfd))

"""Raw system calls through the C library, without the price of the ctypes package.

`_ctypes` alone costs a third of `ctypes` at start-up. The functions hold the GIL (as `ctypes.PyDLL` does): clone3 must
not be made while the interpreter believes that another thread may run.
"""

from __future__ import annotations

import _ctypes
import os

_RTLD_NOW = 2


class c_long(_ctypes._SimpleCData):  # type: ignore[type-arg]  # generic for the checker only
    _type_ = "l"


class c_char(_ctypes._SimpleCData):  # type: ignore[type-arg]  # generic for the checker only
    _type_ = "c"


class _Function(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = c_long


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Buffer: TypeAlias = _ctypes.Array[c_char]

# dlopen(NULL) is the program itself, and with it the C library.
_libc = _ctypes.dlopen(None, _RTLD_NOW)  # type: ignore[arg-type]  # the stub leaves None out
_libc_syscall = _Function(_ctypes.dlsym(_libc, "syscall"))

MACHINE = os.uname().machine

# The numbers above 423 are the same on every architecture (Linux, scripts/syscall.tbl).
_COMMON = {
    "pidfd_send_signal": 424, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "fspick": 433, "pidfd_open": 434, "clone3": 435, "close_range": 436, "openat2": 437, "pidfd_getfd": 438,
    "faccessat2": 439, "mount_setattr": 442, "set_mempolicy_home_node": 450,
}  # fmt: skip
_X86_64 = {
    "read": 0, "write": 1, "open": 2, "close": 3, "poll": 7, "ioctl": 16, "dup2": 33, "dup3": 292, "sendmsg": 46,
    "clone": 56, "execve": 59, "exit": 60, "wait4": 61, "fchdir": 81, "setsid": 112, "umask": 95, "setgroups": 116,
    "setresuid": 117, "setresgid": 119, "capget": 125, "capset": 126, "personality": 135, "prctl": 157,
    "pivot_root": 155, "sethostname": 170, "setdomainname": 171, "mount": 165, "umount2": 166, "sched_setaffinity": 203,
    "exit_group": 231, "set_mempolicy": 238, "keyctl": 250, "ioprio_set": 251, "unshare": 272, "signalfd4": 289,
    "prlimit64": 302, "name_to_handle_at": 303, "open_by_handle_at": 304, "setns": 308, "sched_setattr": 314,
    "seccomp": 317, "bpf": 321, "execveat": 322, "memfd_create": 319, "quotactl": 179, "chroot": 161, "chdir": 80,
    "rt_sigaction": 13, "rt_sigprocmask": 14, "socket": 41, "fcntl": 72, "getpid": 39, "statfs": 137, "fstatfs": 138,
    "fchownat": 260, "setfsuid": 122, "setfsgid": 123,
}  # fmt: skip
_AARCH64 = {
    "read": 63, "write": 64, "close": 57, "ppoll": 73, "ioctl": 29, "dup3": 24, "sendmsg": 211, "clone": 220,
    "execve": 221, "exit": 93, "wait4": 260, "fchdir": 50, "setsid": 157, "umask": 166, "setgroups": 159,
    "setresuid": 147, "setresgid": 149, "capget": 90, "capset": 91, "personality": 92, "prctl": 167, "pivot_root": 41,
    "sethostname": 161, "setdomainname": 162, "mount": 40, "umount2": 39, "sched_setaffinity": 122, "exit_group": 94,
    "set_mempolicy": 237, "keyctl": 219, "ioprio_set": 30, "unshare": 97, "signalfd4": 74, "prlimit64": 261,
    "name_to_handle_at": 264, "open_by_handle_at": 265, "setns": 268, "sched_setattr": 274, "seccomp": 277, "bpf": 280,
    "execveat": 281, "memfd_create": 279, "quotactl": 60, "chroot": 51, "chdir": 49,
    "rt_sigaction": 134, "rt_sigprocmask": 135,
    "socket": 198, "fcntl": 25, "getpid": 172, "statfs": 43, "fstatfs": 44,
    "fchownat": 54, "setfsuid": 151, "setfsgid": 152,
}  # fmt: skip

NUMBERS = _COMMON | {"x86_64": _X86_64, "aarch64": _AARCH64}.get(MACHINE, {})


class SyscallError(OSError):
    """A system call failed; `call` is its name and `operand` what it was made on, both for the message."""

    def __init__(self, number: int, call: str, operand: str) -> None:
        super().__init__(number, os.strerror(number))
        self.call = call
        self.operand = operand

    def __str__(self) -> str:
        text = os.strerror(self.errno or 0)
        text = text[:1].lower() + text[1:]
        return f"{self.call} {self.operand}: {text}" if self.operand else f"{self.call}: {text}"


def syscall(name: str, *args: int | bytes | object, operand: str = "") -> int:
    """Make system call `name`; integers go as C longs, bytes and ctypes arrays by address.

    Bytes are for the kernel to read only; what it writes goes into a `buffer()`. `operand` is what an error names.

    Raises:
        SyscallError: the call failed (an OSError with `errno`).
        OSError: ENOSYS, where this architecture has no number for `name`.
    """
    number = NUMBERS.get(name)
    if number is None:
        raise SyscallError(38, name, operand)  # ENOSYS
    result: int = _libc_syscall(c_long(number), *[c_long(a) if isinstance(a, int) else a for a in args])
    if result == -1:
        raise SyscallError(_ctypes.get_errno(), name, operand)
    return result


def buffer(size: int) -> Buffer:
    """A C array of `size` zero bytes that the kernel may write into; `bytes(buffer)` reads it."""
    array: Buffer = (c_char * size)()
    return array


def address(array: Buffer) -> int:
    """Where a `buffer()` lies, for structures that hold pointers."""
    return _ctypes.addressof(array)


def c_path(path: str | bytes) -> bytes:
    """`path` as the kernel wants it: bytes with a closing NUL (the `_ctypes` call passes the address of the bytes)."""
    return os.fsencode(path) + b"\0"

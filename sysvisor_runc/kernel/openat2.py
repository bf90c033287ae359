"""openat2(2), Linux 5.6: open a path with the resolution confined."""

import os

from sysvisor_runc.kernel.syscall import c_path, syscall

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10


def openat2(dirfd: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open `path` below `dirfd` and return the file descriptor, close-on-exec.

    struct open_how is three u64: flags, mode, resolve. EAGAIN means that a rename raced with the walk up through a
    `..`: the kernel asks the caller to try again (openat2(2), ERRORS), which is done here a bounded number of times.
    """
    how = b"".join(n.to_bytes(8, "little") for n in (flags | os.O_CLOEXEC, mode, resolve))
    name = c_path(path)
    operand = path if isinstance(path, str) else os.fsdecode(path)
    for _ in range(128):
        try:
            return syscall("openat2", dirfd, name, how, len(how), operand=operand)
        except OSError as error:
            if error.errno != 11:  # EAGAIN
                raise
    return syscall("openat2", dirfd, name, how, len(how), operand=operand)

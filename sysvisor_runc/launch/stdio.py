"""The caller's standard input, output and error, which a container without a terminal of its own is given."""

from __future__ import annotations

import os
import stat


def give_stdio(uid: int) -> None:
    """Give stdio to the container's user, host id `uid`, so that /dev/stdout can be reopened in there.

    Pipes, terminals, and files that were opened for writing: nobody has given away /dev/zero, or a file to read.
    """
    for fd in (0, 1, 2):
        try:
            status = os.fstat(fd)
            if status.st_uid != uid and _is_given(fd, status.st_mode):
                os.fchown(fd, uid, -1)
        except OSError:
            pass  # closed, or a file system without owners: nothing that the program could not live with


def _is_given(fd: int, mode: int) -> bool:
    if stat.S_ISREG(mode):
        import fcntl

        return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    return stat.S_ISFIFO(mode) or os.isatty(fd)

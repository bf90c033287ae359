"""The clock offsets of a new time namespace (time_namespaces(7)). Loaded, before the seal, only where there are any.

May import kernel and child.mounts.
"""

from __future__ import annotations

import os

from sysvisor_runc.child.mounts import new_mount
from sysvisor_runc.kernel.prctl import PR_SET_DUMPABLE, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_FILE = "self/timens_offsets"


def open_offsets(*, private: bool) -> int:
    """The file that takes the offsets, opened while this process still has its caller's ids.

    It belongs to the host's root, since this process is not dumpable: as the container's root it could not be opened.
    `private`: there is a mount namespace of our own to mount a procfs in, else the host's is used.
    """
    proc = new_mount("proc", "proc", (), "private procfs") if private else os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    try:
        return os.open(_FILE, os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
    except PermissionError:  # an unprivileged caller, alone in its new user namespace
        prctl(PR_SET_DUMPABLE, 1)
        try:
            return os.open(_FILE, os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
        finally:
            prctl(PR_SET_DUMPABLE, 0)
    finally:
        os.close(proc)


def write_offsets(fd: int, offsets: Sequence[tuple[str, int, int]]) -> None:
    """Write (clock, seconds, nanoseconds) rows: possible from unshare(2) until the first process is in there."""
    try:
        os.write(fd, "".join(f"{clock} {seconds} {nanos}\n" for clock, seconds, nanos in offsets).encode())
    except OSError as error:
        error.filename = "time offsets"
        raise
    finally:
        os.close(fd)

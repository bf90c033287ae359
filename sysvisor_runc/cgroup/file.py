"""Reading and writing one cgroup control file, with errors that name it.

A control file takes one value per write(2), so there is no buffering anywhere. Never creates: a missing file means a
controller that is not there.
"""

from __future__ import annotations

import errno
import os

from sysvisor_runc.errors import CgroupError, reason

GONE = (errno.ENOENT, errno.ENODEV)  # ENODEV: the cgroup was removed while its file was open
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def read(path: str) -> str:
    """The file's text without its last newline. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, 1 << 16)
        if len(data) >= 4096:  # kernfs hands out at most a page or so at a time
            while part := os.read(fd, 1 << 16):
                data += part
    finally:
        os.close(fd)
    return data.decode("ascii", "replace").rstrip("\n")


def read_if_there(path: str) -> str | None:
    """As `read`, or None where the file or its cgroup is gone. Raises OSError for anything else."""
    try:
        return read(path)
    except OSError as e:
        if e.errno in GONE:
            return None
        raise


def write(path: str, value: str) -> None:
    """Write `value` in one write(2). Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def failure(action: str, path: str, error: OSError) -> CgroupError:
    """`mkdir /sys/fs/cgroup/pids/a: permission denied` as a CgroupError, with a hint where there is one to give."""
    hint = None
    if error.errno == errno.EROFS:
        hint = "the cgroup file system is mounted read-only here"
    elif error.errno in DENIED:
        hint = "run as root, or have a cgroup delegated to this user"
    elif error.errno in GONE:
        hint = "the controller is not available in this cgroup"
    return CgroupError(f"unable to apply cgroup configuration: {action} {path}: {reason(error)}", hint=hint)

"""Reading one cgroup control file, and errors that name it. A missing file means a controller that is not there."""

from __future__ import annotations

import errno

from sysvisor_runc.errors import CgroupError, reason
from sysvisor_runc.kernel import file

GONE = (errno.ENOENT, errno.ENODEV)  # ENODEV: the cgroup was removed while its file was open
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def read(path: str) -> str:
    """The file's text without its last newline. Raises OSError."""
    return file.read(path).decode("ascii", "replace").rstrip("\n")


def read_if_there(path: str) -> str | None:
    """As `read`, or None where the file or its cgroup is gone. Raises OSError for anything else."""
    try:
        return read(path)
    except OSError as e:
        if e.errno in GONE:
            return None
        raise


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

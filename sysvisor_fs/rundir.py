"""The run directory, private to root and one daemon's at a time, and the limits of who runs in it."""

from __future__ import annotations

import fcntl
import os
import resource
import stat
import sys
import time

from sysvisor_runc.errors import SysvisorError, reason

# Found now: entering a mount namespace, we leave the directory that it may be told from.
_PROGRAM = os.path.realpath(sys.argv[0])
_PATIENCE = 5.0  # seconds in which a predecessor may finish


def program() -> list[str]:
    """How this program is started."""
    return [sys.executable, "-SI", _PROGRAM]


def raise_descriptor_limit() -> None:
    """As many descriptors as we may have: a thousand containers take two thousand."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def make(path: str) -> None:
    """Make it, or accept one that nobody else can enter.

    Raises:
        SysvisorError: it is somebody else's.
    """
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        status = os.lstat(path)
    except OSError as error:
        raise SysvisorError(f"run directory {path!r}: {reason(error)}")
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise SysvisorError(
            f"run directory {path!r}: expected a directory of ours with mode 0700",
            hint=f"chmod 0700 {path}, or name another one with --run-dir",
        )


def lock(path: str, patience: float = 0.0) -> int:
    """Be the one daemon of the directory until this descriptor is closed; its file says who that is.

    Raises:
        SysvisorError: another one is, still after `patience` seconds.
    """
    fd = os.open(f"{path}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= end:
                pid = owner(fd)
                os.close(fd)
                raise SysvisorError(f"run directory {path!r} is served already by process {pid}", exit_code=3)
            time.sleep(0.01)
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def owner(fd: int) -> int:
    """The pid in a lock's file; 0 for none."""
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else 0


def running(path: str) -> int:
    """The pid of the daemon that serves the directory; 0 for none."""
    try:
        fd = os.open(f"{path}/lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return 0
    except BlockingIOError:
        return owner(fd)
    finally:
        os.close(fd)

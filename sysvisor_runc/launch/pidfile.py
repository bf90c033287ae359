"""The pid file that systemd and the clients wait for."""

from __future__ import annotations

import os

from sysvisor_runc.errors import LaunchError, reason


def write_pid_file(path: str, pid: int) -> None:
    """Write `pid` to `path`, whole or not at all: systemd reads it the moment it appears.

    Raises:
        LaunchError: it cannot be written.
    """
    directory, name = os.path.split(os.path.abspath(path))
    temporary = f"{directory}/.{name}.{os.getpid()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, str(pid).encode())
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError as error:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        hint = "its directory must exist" if error.errno == 2 else None
        raise LaunchError(f"--pid-file: write {path!r}: {reason(error)}", hint=hint) from error

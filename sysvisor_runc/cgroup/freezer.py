"""Freezing and thawing a cgroup with all below it, on v1 and v2.

A task frozen by v1 cannot even die, so whoever kills must thaw afterwards, the whole tree: a container may have frozen
cgroups of its own.
"""

from __future__ import annotations

import errno
import os
import time

from sysvisor_runc.cgroup.file import GONE, failure, read
from sysvisor_runc.cgroup.tree import directories
from sysvisor_runc.errors import CgroupError
from sysvisor_runc.kernel.file import write

_PATIENCE = 10.0
_LONGEST_WAIT = 0.01
# v1 never quite freezes while new tasks keep arriving; letting them run on now and then lets the next try win.
_TRIES_BEFORE_BREATH = 50


def freeze_v1(path: str) -> None:
    """Write FROZEN until the state says so (freezer-subsystem.rst); thaws again where it does not come about.

    Raises:
        CgroupError: not frozen within ten seconds.
    """
    state = path + "/freezer.state"
    deadline = time.monotonic() + _PATIENCE
    tries = 0
    try:
        try:
            while time.monotonic() < deadline:
                write(state, "FROZEN")
                if read(state) == "FROZEN":
                    return
                tries += 1
                if tries % _TRIES_BEFORE_BREATH == 0:
                    write(state, "THAWED")
                    time.sleep(_LONGEST_WAIT)
        except BaseException:  # an interrupt must not leave the container half frozen either
            write(state, "THAWED")
            raise
        write(state, "THAWED")
    except OSError as e:
        raise failure("freeze", path, e) from None
    raise CgroupError(f"unable to freeze {path}: still FREEZING after {_PATIENCE:.0f} seconds")


def freeze_v2(path: str) -> None:
    """Set cgroup.freeze and wait until cgroup.events confirms it (cgroup-v2.rst); thaws again where it does not.

    Raises:
        CgroupError: not frozen within ten seconds.
    """
    deadline = time.monotonic() + _PATIENCE
    wait = 0.0002
    try:
        write(path + "/cgroup.freeze", "1")
        try:
            while "frozen 1" not in read(path + "/cgroup.events"):
                if time.monotonic() > deadline:
                    raise CgroupError(f"unable to freeze {path}: tasks still run after {_PATIENCE:.0f} seconds")
                time.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
        except BaseException:
            write(path + "/cgroup.freeze", "0")
            raise
    except OSError as e:
        raise failure("freeze", path, e) from None


def thaw(path: str, *, v2: bool, recursive: bool = False) -> None:
    """Thaw `path`, with `recursive` also what was frozen below on its own account. A cgroup that is gone is fine."""
    file, value = ("cgroup.freeze", "0") if v2 else ("freezer.state", "THAWED")
    try:
        write(f"{path}/{file}", value)
        if recursive:
            for dirfd in directories(path):
                _write_at(dirfd, file, value)
    except OSError as e:
        if e.errno not in GONE:
            raise failure("thaw", path, e) from None


def _write_at(dirfd: int, file: str, value: str) -> None:
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC, dir_fd=dirfd)
    except OSError as e:
        if e.errno in GONE:
            return
        raise
    try:
        os.write(fd, value.encode())
    except OSError as e:
        if e.errno not in GONE and e.errno != errno.EBUSY:
            raise
    finally:
        os.close(fd)

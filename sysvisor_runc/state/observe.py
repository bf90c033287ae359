"""What a container is doing now: looks at its init, its start pipe, its freezer and its lock. Changes nothing.

While a container is created but not started, its init holds `exec.fifo` open for reading and writing, close-on-exec.
So the pipe has a reader exactly until the user's program runs, and nobody has to record that moment.
"""

from __future__ import annotations

import errno
import os

from sysvisor_runc.state import lifecycle
from sysvisor_runc.state.process import is_alive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.state.record import Record, Status
    from sysvisor_runc.state.store import Entry


def observe(entry: Entry, record: Record) -> Status:
    """The container's status at this moment."""
    stored = record["status"]
    alive = is_alive(record["initPid"], record["initStart"])
    return lifecycle.status(
        stored,
        alive=alive,
        waiting=alive and is_waiting(entry),
        frozen=alive and is_frozen(record),
        busy=stored == "creating" and entry.busy(),
    )


def observe_unrecorded(entry: Entry) -> Status:
    """The status of a container without a record: being created right now, or left behind by a killed command."""
    return lifecycle.status("creating", alive=False, waiting=False, frozen=False, busy=entry.busy())


def is_waiting(entry: Entry) -> bool:
    """Whether somebody holds the start pipe for reading: init, until it executes the user's program (fifo(7))."""
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(entry.FIFO, flags, dir_fd=entry.dirfd)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return False
        raise
    os.close(fd)
    return True


def is_frozen(record: Record) -> bool:
    """Whether the freezer has been told to hold the container's cgroup; not so where there is no cgroup.

    Reads the one small file itself, because loading the cgroup package costs more than `state` may take.
    """
    paths = record["cgroup"]["paths"]
    if "freezer" in paths:
        # self_freezing (Linux 3.8): our own request, whether all tasks have noticed or not, and not an ancestor's.
        return _read(paths["freezer"] + "/freezer.self_freezing") == b"1"
    if "unified" in paths:
        return _read(paths["unified"] + "/cgroup.freeze") == b"1"
    return False


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 64).strip()
    except OSError:
        # ENODEV: the cgroup was removed after the open.
        return b""
    finally:
        os.close(fd)

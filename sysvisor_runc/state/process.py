"""A container's init as the host sees it: is it still the one that was recorded, and a pidfd to act on it.

A pid alone is never believed: it counts only together with the start time in `/proc/PID/stat`, or behind the pidfd's
file handle where the kernel has those.
"""

from __future__ import annotations

import errno
import os

from sysvisor_runc.errors import StateError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.state.record import Record


class NotRunning(StateError):
    """The container's init has ended, or was never there."""

    def __init__(self) -> None:
        super().__init__("container not running")


class Stat:
    """One reading of `/proc/PID/stat`.

    Attributes:
        start: when it started, in clock ticks since boot (field 22).
        alive: False for a zombie; a dead main thread whose process still has other threads is alive.
    """

    __slots__ = ("alive", "start")

    def __init__(self, start: int, alive: bool) -> None:
        self.start = start
        self.alive = alive


def read_stat(pid: int) -> Stat | None:
    """`/proc/PID/stat` (proc_pid_stat(5)), or None where there is no such process."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        text = os.read(fd, 1024)
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)
    # The command name may hold blanks and parentheses: count from the last one, after which field 3 begins.
    fields = text[text.rindex(b")") + 2 :].split()
    return Stat(start=int(fields[19]), alive=fields[0] not in (b"Z", b"X") or int(fields[17]) > 1)


def start_time(pid: int) -> int:
    """When process `pid` started, in clock ticks since boot.

    Raises:
        ProcessLookupError: there is no such process.
    """
    stat = read_stat(pid)
    if stat is None:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    return stat.start


def is_alive(pid: int, start: int) -> bool:
    """Whether the process that had `pid` and started at `start` still runs; a zombie does not."""
    if pid <= 0:
        return False
    stat = read_stat(pid)
    return stat is not None and stat.alive and stat.start == start


def handle_of(pidfd: int) -> str:
    """The pidfd's file handle in hex, to keep in a record; empty where the kernel has none (before 6.14)."""
    from sysvisor_runc.kernel.pidfd import name_to_handle_at

    try:
        return name_to_handle_at(pidfd).hex()
    except OSError:
        return ""


def open_process(pid: int, start: int, handle: str = "") -> int:
    """A pidfd of the process that had `pid` and started at `start`, never of another that has its pid now.

    With a `handle` from `handle_of` it is opened by that, which is exact even for a pid reused within one clock tick.

    Raises:
        ProcessLookupError: it is gone, or a zombie.
    """
    pidfd = _open_handle(bytes.fromhex(handle)) if handle else _open_pid(pid)
    # The start time is read after the pidfd was opened: if the pid still belongs to the recorded process now, it did so
    # a moment ago. It is compared for a handle too, as handles start afresh at every boot and a state root may not.
    if is_alive(pid, start):
        return pidfd
    os.close(pidfd)
    raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))


def _open_pid(pid: int) -> int:
    if pid <= 0:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        # The number now belongs to a thread: EINVAL, since Linux 6.9 ENOENT.
        if error.errno in (errno.EINVAL, errno.ENOENT):
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        raise


def _open_handle(handle: bytes) -> int:
    from sysvisor_runc.kernel.pidfd import open_by_handle_at

    # Any pidfd tells the kernel which file system is meant (a constant for it, FD_PIDFS_ROOT, came only with 6.17).
    own = os.pidfd_open(os.getpid())
    try:
        return open_by_handle_at(own, handle)
    except OSError as error:
        if error.errno == errno.ESTALE:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        raise
    finally:
        os.close(own)


def open_init(record: Record) -> int:
    """A close-on-exec pidfd of the container's init, verified to be the recorded one.

    Raises:
        NotRunning: it has ended, or is a zombie.
    """
    try:
        # Not by its handle: that proves no more here, and would cost a raw system call, which is a millisecond.
        return open_process(record["initPid"], record["initStart"])
    except ProcessLookupError:
        raise NotRunning()


def send_signal(pidfd: int, signal: int) -> None:
    """Send `signal` (0 only asks) to the process behind `pidfd`.

    Raises:
        NotRunning: it has been reaped.
        StateError: the signal was refused.
    """
    from sysvisor_runc.kernel.pidfd import pidfd_send_signal

    try:
        pidfd_send_signal(pidfd, signal)
    except ProcessLookupError:
        raise NotRunning()
    except OSError as error:
        raise StateError(f"unable to signal init: signal {signal}: {reason(error)}")


def wait_exit(pidfd: int, timeout: float | None = None) -> bool:
    """Wait until the process behind `pidfd` has ended, `timeout` seconds at most; whether it has.

    A process has ended when all its threads have, reaped or not.
    """
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if timeout is None else max(0, int(timeout * 1000))))


def wait_status(pidfd: int) -> int | None:
    """How the process behind `pidfd` ended, as wait(2) reports it; None where nobody can know.

    The kernel tells it of a process that is not our child only once its parent has reaped it (Linux 6.15).
    """
    from sysvisor_runc.kernel.pidfd import pidfd_get_info

    try:
        return pidfd_get_info(pidfd).wait_status
    except OSError:
        return None


def zombie_status(pid: int, start: int) -> int | None:
    """How the zombie that has `pid` and began at `start` ended, as wait(2) reports it; None where it cannot be told.

    It is the last field of /proc/PID/stat (proc_pid_stat(5)), which who may not trace it reads as 0.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(1024)
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    if fields[0] not in (b"Z", b"X") or int(fields[19]) != start:
        return None
    status = int(fields[49])
    return status if status or os.geteuid() == 0 else None

"""The lock of a container: who changes it holds it alone, who only looks does without.

A module of its own, because `state` and `kill` do without.
"""

from __future__ import annotations

import fcntl
import os

from sysvisor_runc.errors import NoSuchContainer, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Protocol

    class Lockable(Protocol):
        """What is locked: a container's directory, open at `dirfd`."""

        id: str
        dirfd: int

        def holds_lock(self, exclusive: bool) -> None: ...
        def is_current(self) -> bool: ...
        def unlock(self) -> None: ...


class Lock:
    """One holding of a container's lock: a flock on its directory.

    A flock belongs to the open directory, which a child made without execve shares. Leaving therefore unlocks
    explicitly, for all who share it, and such a child closes the directory first of all.
    """

    __slots__ = ("_entry", "_operation", "_timeout")

    def __init__(self, entry: Lockable, operation: int, timeout: float) -> None:
        self._entry = entry
        self._operation = operation
        self._timeout = timeout

    def __enter__(self) -> None:
        try:
            fcntl.flock(self._entry.dirfd, self._operation | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait()
        self._entry.holds_lock(self._operation == fcntl.LOCK_EX)
        if not self._entry.is_current():
            self._release()
            raise NoSuchContainer(f"container does not exist: {self._entry.id!r}", hint="it was deleted just now")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._release()

    def _release(self) -> None:
        self._entry.unlock()

    def _wait(self) -> None:
        """Try again until the time is up: a flock cannot be waited for with a bound, short of a signal."""
        from time import monotonic, sleep

        deadline = monotonic() + self._timeout
        pause = 0.001
        while True:
            sleep(pause)
            try:
                fcntl.flock(self._entry.dirfd, self._operation | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if monotonic() >= deadline:
                    raise StateError(
                        f"container {self._entry.id!r} is busy: another command holds it for {self._timeout:g} s",
                        hint=_holder_hint(os.fstat(self._entry.dirfd)),
                    )
            pause = min(pause * 2, 0.05)


def _holder_hint(directory: os.stat_result) -> str | None:
    """Who holds the lock, from `/proc/locks` (proc_locks(5))."""
    suffix = f":{directory.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as locks:
            for line in locks:
                fields = line.split()
                if fields[1] == "FLOCK" and fields[5].endswith(suffix):
                    return f"it is held by process {fields[4]}"
    except (OSError, ValueError, IndexError):
        pass
    return None

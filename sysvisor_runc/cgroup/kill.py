"""Signalling every process of a container, with none slipping away by forking meanwhile."""

from __future__ import annotations

import errno
import os
import time

from sysvisor_runc.cgroup import tree
from sysvisor_runc.cgroup.file import GONE, failure
from sysvisor_runc.errors import CgroupError
from sysvisor_runc.kernel.file import write
from sysvisor_runc.kernel.pidfd import pidfd_send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Freezable(Protocol):
        """The cgroups of a container, as far as they can be held still: a `Manager`."""

        @property
        def v2(self) -> bool: ...
        def frozen(self) -> bool: ...
        def freeze(self) -> None: ...
        def thaw(self, *, recursive: bool = False) -> None: ...


SIGKILL = 9
_ROUNDS = 50


def kill_all(manager: Freezable, path: str, signum: int) -> int:
    """See `Manager.kill_all`. Raises CgroupError."""
    if manager.v2 and signum == SIGKILL:
        count = len(tree.pids(path))
        if _kill_v2(path):
            return count
    was_frozen = manager.frozen()
    held = was_frozen or try_freeze(manager)
    try:
        count = _signal_all(path, signum)
        if not held and signum == SIGKILL:
            # Nothing held them still: go round until no new one turns up.
            for _ in range(_ROUNDS):
                if not _signal_all(path, signum):
                    break
                time.sleep(0.001)
    finally:
        if signum == SIGKILL:
            manager.thaw(recursive=True)
        elif held and not was_frozen:
            manager.thaw()
    return count


def _kill_v2(path: str) -> bool:
    """cgroup.kill takes fork races and frozen tasks into account (since Linux 5.14); False where it is missing."""
    try:
        write(path + "/cgroup.kill", "1")
    except OSError as e:
        if e.errno in GONE:
            return not os.path.isdir(path)
        if e.errno == errno.EOPNOTSUPP:  # a threaded cgroup
            return False
        raise failure("kill", path, e) from None
    return True


def try_freeze(manager: Freezable) -> bool:
    """Hold all processes still; False where they cannot be."""
    try:
        manager.freeze()
    except CgroupError:
        return False
    return True


def _signal_all(path: str, signum: int) -> int:
    """Signal whoever is in `path` now. A pid counts only if it is still listed once its pidfd is open: unless the
    cgroup is frozen, it may have gone to somebody else in between."""
    opened: dict[int, int] = {}
    count = 0
    try:
        for pid in tree.pids(path):
            try:
                opened[pid] = os.pidfd_open(pid)
            except OSError:
                continue  # gone since the list was read
        listed = set(tree.pids(path)) if opened else set()
        for pid, pidfd in opened.items():
            if pid in listed:
                try:
                    pidfd_send_signal(pidfd, signum)
                    count += 1
                except ProcessLookupError:
                    pass
    finally:
        for pidfd in opened.values():
            os.close(pidfd)
    return count

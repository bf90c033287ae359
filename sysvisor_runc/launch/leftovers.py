"""Remove what a launch killed by SIGKILL left behind: its init, its cgroups, its resctrl group and its ids.

Mounts, namespaces and devices need no removal, they are gone with the last process. The notes that the launch wrote
say where to look; they may name what was never made.
"""

from __future__ import annotations

import errno
import os
import time

from sysvisor_runc.cgroup.manager import Manager
from sysvisor_runc.errors import SysvisorError
from sysvisor_runc.launch import notes
from sysvisor_runc.state import process, subid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.cgroup.systemd import Connect
    from sysvisor_runc.state.store import Entry

_SIGKILL = 9
_PATIENCE = 10.0
_PATIENCE_UNUSED = 0.5


def remove_leftovers(
    entry: Entry, connect: Connect | None = None, serve_fs_agent: Callable[[int], None] | None = None
) -> None:
    """Remove all that the notes in `entry` name; what is not there (any more) is fine.

    `connect` reaches systemd; without it a unit is left to end by itself, as a scope does that nobody is in.

    Raises:
        SysvisorError: something could not be removed; it can be tried again.
    """
    found = notes.read(entry)
    paths = dict(word.split(" ", 1) for kind, word in found if kind == "cgroup")
    manager = Manager(paths, delegated=any(kind == "delegated" for kind, _ in found))
    inits = [word for kind, word in found if kind == "init"]
    if inits and manager.exists():
        # Thaws as well: whoever paused it, a frozen task of v1 cannot die.
        manager.kill_all(_SIGKILL)
    for word in inits:
        _end(word)
    for kind, word in found:
        if kind in ("unit", "user-unit") and connect is not None:
            _stop_unit(word, connect, user=kind == "user-unit")
        if kind == "fs":
            from sysvisor_runc.launch.fsend import unregister_noted

            unregister_noted(word, entry.id, os.path.dirname(entry.path), serve_fs_agent)
    if inits:
        manager.remove()
    else:
        _remove_unused(manager)
    # The last ones made go first: a monitoring group before the group that it is in.
    for kind, word in reversed(found):
        if kind == "rdt":
            from sysvisor_runc.launch.rdt import remove_rdt

            remove_rdt(word)
        if kind == "overlay":
            from sysvisor_runc.launch.overlay import remove_work

            remove_work(word)
    subid.free(entry.path, None)


def _stop_unit(name: str, connect: Connect, *, user: bool) -> None:
    from sysvisor_runc.cgroup.systemd import UnitCgroup
    from sysvisor_runc.cgroup.unit import Unit
    from sysvisor_runc.launch.unit import stop_unit

    stop_unit(UnitCgroup(Unit(name, "", user=user), connect, started=True))


def _remove_unused(manager: Manager) -> None:
    """No init was noted, so the launch may not even have found out whether the cgroups are somebody else's.

    Only empty ones go then. A child that had just been cloned into one leaves it in a moment.
    """
    deadline = time.monotonic() + _PATIENCE_UNUSED
    pending = [*manager.exec_paths().values(), *manager.paths.values()]
    while pending and time.monotonic() < deadline:
        pending = [path for path in pending if not _rmdir(path)]
        if pending:
            time.sleep(0.005)


def _rmdir(path: str) -> bool:
    try:
        os.rmdir(path)
    except OSError as error:
        return error.errno != errno.EBUSY
    return True


def _end(word: str) -> None:
    """Kill the init noted as `PID START`, unless it has ended by itself, as it does once it finds its host gone."""
    pid, _, start = word.partition(" ")
    try:
        pidfd = process.open_process(int(pid), int(start))
    except ProcessLookupError:
        return
    try:
        process.send_signal(pidfd, _SIGKILL)
        if not process.wait_exit(pidfd, _PATIENCE):
            raise SysvisorError(f"container init {pid} does not die", hint="look for it in state D")
    except process.NotRunning:
        return
    finally:
        os.close(pidfd)

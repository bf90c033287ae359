"""The systemd driver's part of a launch and of a container's end; loaded with --systemd-cgroup alone.

systemd wants a process for the unit that it makes, so the unit comes after the clone. What opens the cgroups to the
child, which it inherits otherwise, is then sent after it through a socket.
"""

from __future__ import annotations

import os

from sysvisor_runc import log
from sysvisor_runc.cgroup.devices import Devices
from sysvisor_runc.cgroup.file import failure
from sysvisor_runc.cgroup.systemd import UnitCgroup, new_unit
from sysvisor_runc.cgroup.unit import Unit
from sysvisor_runc.cgroup.unit_resources import rounded
from sysvisor_runc.child import late
from sysvisor_runc.errors import CgroupError
from sysvisor_runc.kernel.file import write
from sysvisor_runc.launch import notes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Sequence

    from sysvisor_runc.cgroup.manager import Manager
    from sysvisor_runc.cgroup.systemd import Connect
    from sysvisor_runc.launch.request import Request
    from sysvisor_runc.launch.undo import UndoStack
    from sysvisor_runc.plan.mounts import Tree
    from sysvisor_runc.spec.types import LinuxResources, Spec
    from sysvisor_runc.state.record import CgroupRecord, Record
    from sysvisor_runc.state.store import Entry

_SIGKILL = 9


class UnitLaunch:
    """The unit of a container that is being created.

    Attributes:
        cgroup: the unit itself.
        resources: what the container asks for, as systemd rounds it.
        late_trees: numbers of the trees that show the container's cgroups, and are there only with the unit.
    """

    __slots__ = ("_link", "cgroup", "late_trees", "resources")

    def __init__(self, request: Request, spec: Spec) -> None:
        path = (spec.get("linux") or {}).get("cgroupsPath")
        self.cgroup = new_unit(path, request.container_id, request.connect_systemd, rootless=request.rootless)
        self._link: _socket.socket | None = None
        self.late_trees: list[int] = []
        self.resources = rounded((spec.get("linux") or {}).get("resources") or {})

    def early_trees(self, trees: Sequence[Tree], manager: Manager) -> list[int]:
        """The numbers of the other trees."""
        cgroups = {*manager.paths.values(), *manager.exec_paths().values()}
        self.late_trees = [number for number, tree in enumerate(trees) if tree.path in cgroups]
        return [number for number in range(len(trees)) if number not in self.late_trees]

    def child_end(self) -> int:
        """A socket for the child, which gets the files that let it into its cgroups there."""
        self._link, theirs = late.pair()
        return theirs

    def descriptors(self) -> list[int]:
        """What the child must not keep."""
        own = -1 if self._link is None else self._link.fileno()
        return [fd for fd in (own, self.cgroup.fileno()) if fd >= 0]

    def start(self, entry: Entry, pid: int, spec: Spec, *, v2: bool) -> None:
        """Make the unit with the child in it, and note it for `delete --force`. Raises CgroupError, SpecError.

        Not before: until it is made it may be somebody else's, and if we are killed in between the child ends by
        itself, and the unit with it.
        """
        self.cgroup.start(entry.id, pid, spec, self.resources, v2=v2)
        unit = self.cgroup.unit
        notes.note(entry, "user-unit" if unit.user else "unit", unit.name)

    def let_in(self, manager: Manager, pid: int, trees: dict[int, int]) -> None:
        """Let the child into those cgroups that systemd has not put it into, and hand it the late trees.

        Raises:
            CgroupError: a cgroup is gone, or may not be joined.
        """
        if self.cgroup.unit.is_slice and manager.v2:
            # systemd puts no process into a slice.
            path = manager.paths["unified"]
            try:
                write(path + "/cgroup.procs", str(pid))
            except OSError as error:
                raise failure("join", path, error) from None
        opened = manager.join_fds()
        if not manager.v2 and "unified" in manager.paths:
            opened.append(os.open(manager.exec_paths()["unified"] + "/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
        leaf = manager.leaf_fd()
        if self._link is not None:
            late.send(self._link, opened, -1 if leaf is None else leaf, trees)
            self._link = None
        for fd in (*opened, *trees.values(), *([] if leaf is None else [leaf])):
            os.close(fd)
        self.cgroup.close()

    def undo(self, manager: Manager) -> None:
        """Stop the unit, if it is ours, and remove what is left of its cgroups. The child is dead by now."""
        if self.cgroup.started:
            manager.kill_all(_SIGKILL)
            self.cgroup.stop()
            manager.remove()

    def record(self, paths: dict[str, str]) -> CgroupRecord:
        """What to store."""
        unit = self.cgroup.unit
        return {"driver": "systemd", "paths": paths, "leaf": "", "unit": unit.name, "userUnit": unit.user}


def recorded_unit(record: CgroupRecord, connect: Connect) -> UnitCgroup:
    """The unit of a recorded container."""
    return UnitCgroup(Unit(record["unit"], "", user=record["userUnit"]), connect, started=True)


def update_unit(
    record: Record, manager: Manager, new: LinuxResources, old: LinuxResources, connect: Connect, undo: UndoStack
) -> None:
    """Tell systemd of `new` resources, or it would set back sooner or later what it does not know; `old` is for `undo`.

    Raises:
        CgroupError: systemd refuses.
    """
    unit = recorded_unit(record["cgroup"], connect)

    def set_back() -> None:
        unit.set_back(manager, old, new)
        _reapply_devices(record, manager)
        unit.close()

    undo.push("properties of the unit", set_back)
    unit.set(manager, new)
    _reapply_devices(record, manager)
    unit.close()


def _reapply_devices(record: Record, manager: Manager) -> None:
    """On v1 systemd writes the device lists as well, from what it could be told of them."""
    if not manager.v2:
        resources = (record["spec"].get("linux") or {}).get("resources") or {}
        manager.apply([Devices(resources.get("devices", []))])


def stop_unit(unit: UnitCgroup) -> None:
    """Stop a unit whose processes are dead. That this fails is a warning: an empty scope ends by itself, and whatever
    cgroups are left can be removed without systemd."""
    try:
        unit.stop()
    except CgroupError as error:
        log.warning(f"stop {unit.unit.name}: {error}")
    finally:
        unit.close()

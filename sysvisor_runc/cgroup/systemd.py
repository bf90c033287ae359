"""The systemd driver: a container's cgroup as a transient unit, made, changed and stopped through a service manager.

How a service manager is spoken to is not known here: it is handed in as a `ServiceManager`, which lies in aio. Whatever
systemd has no property for is written by `Manager` into the same cgroups.
"""

from __future__ import annotations

import os

from sysvisor_runc import log
from sysvisor_runc.cgroup.unit import annotated, container_unit, creation, unit_paths
from sysvisor_runc.cgroup.unit_resources import convert, unset
from sysvisor_runc.errors import CgroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from sysvisor_runc.cgroup.layout import Layout
    from sysvisor_runc.cgroup.manager import Manager
    from sysvisor_runc.cgroup.unit import Property, Unit
    from sysvisor_runc.spec.types import LinuxResources, Spec

    class ServiceManager(Protocol):
        """A connection to a service manager. All raise CgroupError, those that name a unit NoUnit or UnitExists."""

        def control_group(self) -> str: ...
        def version(self) -> int: ...
        def start(self, name: str, properties: list[Property]) -> None: ...
        def stop(self, name: str) -> None: ...
        def reset_failed(self, name: str) -> None: ...
        def set_properties(self, name: str, properties: list[Property]) -> None: ...
        def attach(self, name: str, below: str, pid: int) -> None: ...
        def fileno(self) -> int: ...
        def close(self) -> None: ...

    Connect = Callable[[bool], ServiceManager]

# sd_booted(3)
_BOOTED = "/run/systemd/system"
_PRIVATE = "/run/systemd/private"


class UnitExists(CgroupError):
    """There is such a unit already."""


class NoUnit(CgroupError):
    """There is no such unit (any more)."""


def require_systemd() -> None:
    """Raises CgroupError where systemd is not the system's service manager."""
    if not os.path.isdir(_BOOTED):
        raise CgroupError(
            "systemd not running on this host, cannot use systemd cgroups manager",
            hint="leave out --systemd-cgroup to write to cgroupfs directly",
        )


def wants_user_manager(rootless: bool | None) -> bool:
    """Whether the caller's own service manager is the one to ask.

    Undecided (None), that is so unless the machine's manager lets us in: it does not let in an ordinary user, nor the
    root of a user namespace unless systemd runs in there itself.
    """
    return not os.access(_PRIVATE, os.W_OK) if rootless is None else rootless


class UnitCgroup:
    """The unit of one container.

    Attributes:
        unit: its name and place.
        started: whether it is ours by now, and so ours to stop.
    """

    __slots__ = ("_connect", "_manager", "started", "unit")

    def __init__(self, unit: Unit, connect: Connect, *, started: bool = False) -> None:
        self.unit = unit
        self.started = started
        self._connect = connect
        self._manager: ServiceManager | None = None

    @property
    def manager(self) -> ServiceManager:
        """The connection, made when it is first needed."""
        if self._manager is None:
            self._manager = self._connect(self.unit.user)
        return self._manager

    def fileno(self) -> int:
        """The connection's descriptor, -1 without one."""
        return -1 if self._manager is None else self._manager.fileno()

    def close(self) -> None:
        """Close the connection if there is one; it comes back when it is needed."""
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def paths(self, layout: Layout) -> dict[str, str]:
        """Where the cgroups of the unit will be."""
        return unit_paths(layout, self.unit, self.manager.control_group())

    def start(self, container_id: str, pid: int, spec: Spec, resources: LinuxResources, *, v2: bool) -> None:
        """Make the unit with process `pid` in it, and with `resources` (see `unit_resources.rounded`) set.

        A unit of this name that has failed is forgotten first.

        Raises:
            SpecError: an annotation or resource that cannot be told systemd.
            CgroupError: there is such a unit, or systemd refuses.
        """
        properties = creation(self.unit, container_id, pid, v2=v2)
        properties += convert(resources, v2=v2, version=self.manager.version, devices=not self.unit.user)
        properties += annotated(spec.get("annotations") or {})
        # Should we never hear the answer, the unit may well be there.
        self.started = True
        try:
            self._start(self.unit.name, properties)
        except UnitExists:
            self.started = False
            raise

    def _start(self, name: str, properties: list[Property]) -> None:
        try:
            self.manager.start(name, properties)
        except UnitExists:
            try:
                self.manager.reset_failed(name)
            except CgroupError as error:
                log.debug(f"reset the failed state of {name}: {error}")
            self.manager.start(name, properties)

    def set(self, manager: Manager, resources: LinuxResources) -> None:
        """Change the unit's properties to `resources`, until the next boot as is the unit itself.

        On v1 systemd closes the device lists for a moment whenever it writes them, so the container stands still then.

        Raises:
            CgroupError: systemd refuses. The container runs on.
        """
        properties = convert(resources, v2=manager.v2, version=self.manager.version, devices=False)
        self._set(manager, properties)

    def set_back(self, manager: Manager, old: LinuxResources, new: LinuxResources) -> None:
        """Undo a `set` of `new`, as far as `old` tells what was there before. Raises CgroupError."""
        version = self.manager.version
        properties = unset(convert(new, v2=manager.v2, version=version, devices=False))
        self._set(manager, properties + convert(old, v2=manager.v2, version=version, devices=False))

    def _set(self, manager: Manager, properties: list[Property]) -> None:
        if not properties:
            return
        still = not manager.v2 and "freezer" in manager.paths and not manager.frozen()
        if still:
            manager.freeze()
        try:
            self.manager.set_properties(self.unit.name, properties)
        finally:
            if still:
                manager.thaw()

    def attach(self, below: str, pid: int) -> None:
        """Have systemd move a process into the unit's cgroup, or `below` it (`/leaf`). Raises CgroupError."""
        self.manager.attach(self.unit.name, below, pid)

    def stop(self) -> None:
        """Stop the unit and have systemd forget it, should it have failed. One that is gone is fine.

        Its processes should be dead by now: systemd asks them politely, and waits.

        Raises:
            CgroupError: systemd cannot be reached, or does not manage it in time.
        """
        try:
            self.manager.stop(self.unit.name)
        except NoUnit:
            pass
        try:
            self.manager.reset_failed(self.unit.name)
        except CgroupError as error:
            log.debug(f"reset the failed state of {self.unit.name}: {error}")
        self.started = False


def new_unit(cgroups_path: str | None, container_id: str, connect: Connect, *, rootless: bool | None) -> UnitCgroup:
    """The unit for a new container; nothing is made yet.

    Raises:
        SpecError: `cgroups_path` is not of the form slice:prefix:name.
        CgroupError: systemd is not running.
    """
    unit = container_unit(cgroups_path, container_id, user=wants_user_manager(rootless))
    require_systemd()
    return UnitCgroup(unit, connect)

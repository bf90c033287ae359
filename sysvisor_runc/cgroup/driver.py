"""Which driver looks after a container's cgroups: cgroupfs, written directly, or systemd over D-Bus.

The one place that chooses; everything else sees a `Manager`.
"""

from __future__ import annotations

import os

from sysvisor_runc.cgroup.manager import Manager
from sysvisor_runc.cgroup.paths import container_paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.layout import Layout
    from sysvisor_runc.cgroup.systemd import UnitCgroup


def open_driver(
    layout: Layout,
    cgroups_path: str | None,
    container_id: str,
    *,
    unit: UnitCgroup | None = None,
    delegated: bool = False,
) -> Manager:
    """The manager for a new container; an existing one's is `Manager(paths, delegated=…)` from its record.

    With `unit`, systemd makes the cgroups, see `systemd.UnitCgroup`; the manager takes over once it has.

    Raises:
        SpecError: `cgroups_path` climbs.
        CgroupError: systemd cannot be asked where its units are.
    """
    if unit is not None:
        return Manager(unit.paths(layout), delegated=delegated)
    # A service of systemd's finds INVOCATION_ID in its environment.
    if layout.kind == "v2" and layout.unified is not None and "INVOCATION_ID" in os.environ:
        from sysvisor_runc.cgroup.service import make_room

        make_room(layout.unified)
    return Manager(container_paths(layout, cgroups_path, container_id), delegated=delegated)

"""Which driver looks after a container's cgroups: cgroupfs, written directly, or systemd over D-Bus.

The one place that chooses; everything else sees a `Manager`.
"""

from __future__ import annotations

from sysvisor_runc.cgroup.manager import Manager
from sysvisor_runc.cgroup.paths import container_paths
from sysvisor_runc.errors import CgroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.layout import Layout


def open_driver(
    layout: Layout, cgroups_path: str | None, container_id: str, *, systemd: bool = False, delegated: bool = False
) -> Manager:
    """The manager for a new container; an existing one's is `Manager(paths, delegated=…)` from its record.

    Raises:
        SpecError: `cgroups_path` climbs.
        CgroupError: the systemd driver, which does not exist yet.
    """
    if systemd:
        raise CgroupError(
            "the systemd cgroup driver is not available yet", hint="leave out --systemd-cgroup to use cgroupfs"
        )
    return Manager(container_paths(layout, cgroups_path, container_id), delegated=delegated)

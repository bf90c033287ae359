"""What a container uses, as runc's `events` prints it: the same names, nesting and order, zeros left out as there.

Loaded by `events` only. What each version of cgroups tells is `stats_v1`'s and `stats_v2`'s; Intel RDT and the network
are not cgroups, and are added by the caller.
"""

from __future__ import annotations

from sysvisor_runc.cgroup.stats_shapes import cpuset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.manager import Manager
    from sysvisor_runc.cgroup.stats_shapes import Table


def stats(manager: Manager) -> Table:
    """The container's usage; an object with its parts in runc's order, those that are no cgroup's empty.

    Raises:
        CgroupError: a control file is there and cannot be read.
    """
    parts: Table = {}
    if manager.v2:
        from sysvisor_runc.cgroup.stats_v2 import collect as collect_v2

        parts = collect_v2(next(iter(manager.paths.values())))
    elif manager.paths:
        from sysvisor_runc.cgroup.stats_v1 import collect as collect_v1

        parts = collect_v1(manager.paths, delegated=manager.delegated)
    table: Table = {
        "cpu": {},
        "cpuset": cpuset([], [], {}),
        "memory": {},
        "pids": {},
        "blkio": {},
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": None,
    }
    # rdma and misc, where there is something to tell, come behind what runc has.
    table.update((key, part) for key, part in parts.items() if part or key in table)
    return table


def oom_kills(manager: Manager) -> int:
    """How many processes the kernel killed for want of memory here; 0 where it does not count."""
    from sysvisor_runc.cgroup.counters import keyed
    from sysvisor_runc.cgroup.layout import UNIFIED

    path = manager.paths.get(UNIFIED if manager.v2 else "memory")
    if path is None:
        return 0
    return keyed(path, "memory.events" if manager.v2 else "memory.oom_control").get("oom_kill", 0)

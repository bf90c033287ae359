"""All that a container uses, in one object: that of runc's `events`. Loaded by `events` only."""

from __future__ import annotations

from sysvisor_runc.cgroup.manager import Manager
from sysvisor_runc.cgroup.stats import stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.state.record import Record


def usage(record: Record) -> dict[str, object]:
    """What the container uses at this moment.

    Raises:
        CgroupError: a control file is there and cannot be read.
    """
    from sysvisor_runc.state.interfaces import interfaces

    cgroup = record["cgroup"]
    table = stats(Manager(cgroup["paths"], delegated=bool(cgroup["leaf"])))
    intel_rdt = (record["spec"].get("linux") or {}).get("intelRdt")
    if intel_rdt is not None:
        from sysvisor_runc.launch.rdt_usage import rdt_usage

        table["intel_rdt"] = rdt_usage(intel_rdt, record["id"])
    table["network_interfaces"] = interfaces(record["initPid"], record["initStart"])
    return table

"""The objects that runc's `events` prints of both versions of cgroups: names, order, and which zeros are left out."""

from __future__ import annotations

from sysvisor_runc.cgroup.counters import nested

TYPE_CHECKING = False
if TYPE_CHECKING:
    # Any JSON object.
    Table = dict[str, object]

# The numbers of a v1 cpuset, in the order of printing.
CPUSET = (
    "cpu_exclusive",
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
    "sched_relax_domain_level",
)


def omitempty(table: Table, *always: str) -> Table:
    """`table` without what is zero or empty, `always` excepted: Go's tag of this name."""
    return {key: value for key, value in table.items() if value or key in always}


def omitzero(table: Table, *always: str) -> Table:
    """As `omitempty`; nothing at all where everything is zero."""
    return omitempty(table, *always) if any(table.values()) else {}


def usage(total: int, kernel: int, user: int, percpu: dict[str, list[int]] | None = None) -> Table:
    """CPU time in nanoseconds."""
    return omitzero({"total": total, **(percpu or {}), "kernel": kernel, "user": user}, "kernel", "user")


def throttling(periods: int, throttled: int, nanoseconds: int) -> Table:
    return omitempty({"periods": periods, "throttledPeriods": throttled, "throttledTime": nanoseconds})


def cpuset(cpus: list[int], mems: list[int], numbers: dict[str, int]) -> Table:
    """A cpuset of v1; of v2, where it has nothing of this, zeros."""
    table: Table = {}
    for key in CPUSET:
        if key == "cpu_exclusive" and cpus:
            table["cpus"] = cpus
        if key == "mem_hardwall" and mems:
            table["mems"] = mems
        table[key] = numbers.get(key, 0)
    return table


def memory_entry(limit: int, used: int, peak: int, failures: int) -> Table:
    return omitzero({"limit": limit, "usage": used, "max": peak, "failcnt": failures}, "limit", "failcnt")


def hugetlb_entry(used: int, peak: int, failures: int) -> Table:
    return omitempty({"usage": used, "max": peak, "failcnt": failures}, "failcnt")


def blkio_entry(device: str, operation: str, value: int) -> Table | None:
    """One line about a block device, `MAJOR:MINOR`; None where it names none."""
    major, _, minor = device.partition(":")
    if not (major.isdecimal() and minor.isdecimal()):
        return None
    return omitempty({"major": int(major), "minor": int(minor), "op": operation, "value": value})


def rdma(path: str) -> Table:
    """Limits and use of each RDMA device; nothing where a device came or went in between."""
    limits, current = (_rdma_entries(path, file) for file in ("rdma.max", "rdma.current"))
    if len(limits) != len(current):
        return {}
    return omitempty({"rdma_limit": limits, "rdma_current": current})


def _rdma_entries(path: str, file: str) -> list[Table]:
    return [
        omitempty({
            "device": device,
            "hca_handles": _u32(values.get("hca_handle", "0")),
            "hca_objects": _u32(values.get("hca_object", "0")),
        })
        for device, values in nested(path, file)
    ]  # fmt: skip


def _u32(value: str) -> int:
    if value == "max":
        return (1 << 32) - 1
    return int(value) if value.isdecimal() else 0

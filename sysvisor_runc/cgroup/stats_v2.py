"""What cgroup2 tells of a container's usage (kernel: Documentation/admin-guide/cgroup-v2.rst), in the shape of v1."""

from __future__ import annotations

from sysvisor_runc.cgroup.counters import UNLIMITED, keyed, nested, number, page_sizes, text
from sysvisor_runc.cgroup.stats_shapes import (
    blkio_entry,
    hugetlb_entry,
    memory_entry,
    omitempty,
    rdma,
    throttling,
    usage,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.stats_shapes import Table

# A key of io.stat → the list that it belongs to, and v1's name of the operation.
_IO = {
    "rbytes": ("ioServiceBytesRecursive", "Read"),
    "wbytes": ("ioServiceBytesRecursive", "Write"),
    "rios": ("ioServicedRecursive", "Read"),
    "wios": ("ioServicedRecursive", "Write"),
}


def collect(path: str) -> Table:
    """Part → its object, as far as the controllers are there."""
    return {
        "cpu": _cpu(path),
        "memory": _memory(path),
        "pids": _pids(path),
        "blkio": _io(path),
        "hugetlb": _hugetlb(path),
        "rdma": rdma(path),
        "misc": _misc(path),
    }


def _cpu(path: str) -> Table:
    table = keyed(path, "cpu.stat")
    total, kernel, user = (table.get(f"{name}_usec", 0) * 1000 for name in ("usage", "system", "user"))
    held = throttling(table.get("nr_periods", 0), table.get("nr_throttled", 0), table.get("throttled_usec", 0) * 1000)
    return _with_pressure(omitempty({"usage": usage(total, kernel, user), "throttling": held}), path, "cpu.pressure")


def pressure(path: str, file: str) -> Table | None:
    """Pressure stall information: lines of `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`; None where it is off.

    An object where there is none to tell of, as with runc.
    """
    if text(path, file) is None:
        return None
    table: Table = {}
    for name, values in nested(path, file):
        data: Table = {key: _decimal(values.get(key, "0")) for key in ("avg10", "avg60", "avg300")}
        data["total"] = int(values.get("total", "0"))
        if name in ("some", "full") and any(data.values()):
            table[name] = data
    return table


def _decimal(value: str) -> float:
    """A number that prints as Go's: 0 and not 0.0."""
    real = float(value)
    return int(real) if real.is_integer() else real


def _memory(path: str) -> Table:
    raw = keyed(path, "memory.stat")
    used = number(path, "memory.current")
    entries: Table = {}
    if used is not None:
        limit, peak = number(path, "memory.max") or 0, number(path, "memory.peak") or 0
        entries["usage"] = memory_entry(limit, used, peak, 0)
        entries["swap"] = _swap(path, limit, used)
    table: Table = {"cache": raw.get("file", 0), **entries, "raw": dict(sorted(raw.items()))}
    return _with_pressure(omitempty(table), path, "memory.pressure")


def _swap(path: str, memory_limit: int, memory_used: int) -> Table:
    """Memory and swap together, as v1 counts; the peaks of two things have no sum."""
    swap = number(path, "memory.swap.current")
    limit = number(path, "memory.swap.max") or 0 if swap is not None else 0
    return memory_entry(min(limit + memory_limit, UNLIMITED), memory_used + (swap or 0), 0, 0)


def _pids(path: str) -> Table:
    current = number(path, "pids.current")
    if current is None:  # the controller is not passed down: count them
        listed = text(path, "cgroup.procs")
        return omitempty({"current": len((listed or text(path, "cgroup.threads") or "").split())})
    limit = number(path, "pids.max")
    return omitempty({"current": current, "limit": 0 if limit == UNLIMITED else limit})


def _io(path: str) -> Table:
    lists: dict[str, list[Table]] = {"ioServiceBytesRecursive": [], "ioServicedRecursive": []}
    for device, values in nested(path, "io.stat"):
        for key, (name, operation) in _IO.items():
            entry = blkio_entry(device, operation, int(values[key])) if key in values else None
            if entry is not None:
                lists[name].append(entry)
    return _with_pressure(omitempty({**lists}), path, "io.pressure")


def _with_pressure(table: Table, path: str, file: str) -> Table:
    psi = pressure(path, file)
    if psi is not None:
        table["psi"] = psi
    return table


def _hugetlb(path: str) -> Table:
    table: Table = {}
    for size in sorted(page_sizes()):
        used = number(path, f"hugetlb.{size}.rsvd.current")  # since Linux 5.7
        if used is None:
            used = number(path, f"hugetlb.{size}.current")
        if used is not None:
            table[size] = hugetlb_entry(used, 0, keyed(path, f"hugetlb.{size}.events").get("max", 0))
    return table


def _misc(path: str) -> Table:
    """Resource → its use, and how often its limit was in the way (since Linux 5.13)."""
    current, events = keyed(path, "misc.current"), keyed(path, "misc.events")
    return {
        name: omitempty({"usage": used, "events": events.get(f"{name}.max", 0)}) for name, used in current.items()
    }  # fmt: skip

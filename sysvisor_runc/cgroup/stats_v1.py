"""What the v1 controllers tell of a container's usage (kernel: Documentation/admin-guide/cgroup-v1)."""

from __future__ import annotations

from sysvisor_runc.cgroup.counters import keyed, number, page_sizes, ranges, text
from sysvisor_runc.cgroup.stats_shapes import (
    CPUSET,
    blkio_entry,
    cpuset,
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

_TICK = 10_000_000  # USER_HZ is 100 on every architecture that runs containers

# Key → what stands behind `blkio.…` in a file's name, and before it by scheduler (block/bfq-cgroup.c, blk-throttle.c).
_BLKIO = {
    "ioServiceBytesRecursive": "io_service_bytes_recursive",
    "ioServicedRecursive": "io_serviced_recursive",
    "ioQueueRecursive": "io_queued_recursive",
    "ioServiceTimeRecursive": "io_service_time_recursive",
    "ioWaitTimeRecursive": "io_wait_time_recursive",
    "ioMergedRecursive": "io_merged_recursive",
    "ioTimeRecursive": "time_recursive",
    "sectorsRecursive": "sectors_recursive",
}
_SCHEDULERS = ("blkio.bfq.", "blkio.")
# Without a scheduler that counts, the throttle does; recursively since Linux 4.17.
_THROTTLE = {
    "ioServiceBytesRecursive": ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"),
    "ioServicedRecursive": ("blkio.throttle.io_serviced_recursive", "blkio.throttle.io_serviced"),
}


def collect(paths: dict[str, str], *, delegated: bool) -> Table:
    """Part → its object, of the controllers in `paths`; `delegated`: processes are in a cgroup below."""
    found: Table = {"cpu": _cpu(paths.get("cpu"), paths.get("cpuacct"))}
    for controller, key, part in (
        ("cpuset", "cpuset", _cpuset),
        ("pids", "pids", _pids),
        ("blkio", "blkio", _blkio),
        ("hugetlb", "hugetlb", _hugetlb),
        ("rdma", "rdma", rdma),
    ):
        if controller in paths:
            found[key] = part(paths[controller])
    if "memory" in paths:
        found["memory"] = _memory(paths["memory"], delegated)
    return found


def _cpu(cpu: str | None, cpuacct: str | None) -> Table:
    time: Table = {}
    if cpuacct is not None:
        split = keyed(cpuacct, "cpuacct.stat")
        time = usage(
            number(cpuacct, "cpuacct.usage") or 0,
            split.get("system", 0) * _TICK,
            split.get("user", 0) * _TICK,
            _per_cpu(cpuacct),
        )
    held = keyed(cpu, "cpu.stat") if cpu is not None else {}
    names = ("nr_periods", "nr_throttled", "throttled_time")
    return omitempty({"usage": time, "throttling": throttling(*(held.get(name, 0) for name in names))})


def _per_cpu(path: str) -> dict[str, list[int]]:
    """By CPU: all, in the kernel, and in user mode (cpuacct.usage_all: lines of cpu, user, system; since Linux 4.9)."""
    every = (text(path, "cpuacct.usage_percpu") or "").split()
    rows = [line.split()[1:3] for line in (text(path, "cpuacct.usage_all") or "").splitlines()[1:]]
    both = [(int(user), int(system)) for user, system in rows]
    return {
        "percpu": [int(word) for word in every],
        "percpu_kernel": [system for _, system in both],
        "percpu_user": [user for user, _ in both],
    }


def _cpuset(path: str) -> Table:
    numbers = {key: number(path, f"cpuset.{key}") or 0 for key in CPUSET}
    level = text(path, "cpuset.sched_relax_domain_level")
    if level == "-1":  # the one value that may be negative: the system's default
        numbers["sched_relax_domain_level"] = -1
    return cpuset(ranges(path, "cpuset.cpus"), ranges(path, "cpuset.mems"), numbers)


def _memory(path: str, delegated: bool) -> Table:
    raw = keyed(path, "memory.stat")
    # Only the total_ counters know of cgroups below.
    cache = raw.get("total_cache" if delegated else "cache", 0)
    return omitempty({
        "cache": cache,
        "usage": _memory_entry(path, "memory."),
        "swap": _memory_entry(path, "memory.memsw."),
        "kernel": _memory_entry(path, "memory.kmem."),
        "kernelTCP": _memory_entry(path, "memory.kmem.tcp."),
        "raw": dict(sorted(raw.items())),
    })  # fmt: skip


def _memory_entry(path: str, prefix: str) -> Table:
    if number(path, prefix + "usage_in_bytes") is None:
        return {}
    files = ("limit_in_bytes", "usage_in_bytes", "max_usage_in_bytes", "failcnt")
    limit, used, peak, failures = (number(path, prefix + file) or 0 for file in files)
    return memory_entry(limit, used, peak, failures)


def _pids(path: str) -> Table:
    limit = text(path, "pids.max") or "max"
    return omitempty({"current": number(path, "pids.current"), "limit": 0 if limit == "max" else int(limit)})


def _blkio(path: str) -> Table:
    for prefix in _SCHEDULERS:
        found = {key: _blkio_rows(path, prefix + file) for key, file in _BLKIO.items()}
        # One that is not at work counts nothing, but has its files all the same.
        if found["ioServicedRecursive"]:
            return omitempty({**found})
    return omitempty({
        key: next((rows for rows in (_blkio_rows(path, file) for file in files) if rows), [])
        for key, files in _THROTTLE.items()
    })  # fmt: skip


def _blkio_rows(path: str, file: str) -> list[Table]:
    """Lines of `MAJOR:MINOR OPERATION VALUE`, or without the operation; the grand total is left out."""
    rows = []
    for line in (text(path, file) or "").splitlines():
        device, *words = line.split()
        if len(words) not in (1, 2) or not words[-1].isdecimal():
            continue
        entry = blkio_entry(device, words[0] if len(words) == 2 else "", int(words[-1]))
        if entry is not None:
            rows.append(entry)
    return rows


def _hugetlb(path: str) -> Table:
    table: Table = {}
    for size in sorted(page_sizes()):
        # Reservations are what is limited where they are counted (Linux 5.7).
        for prefix in (f"hugetlb.{size}.rsvd.", f"hugetlb.{size}."):
            used = number(path, prefix + "usage_in_bytes")
            if used is not None:
                peak, failures = number(path, prefix + "max_usage_in_bytes"), number(path, prefix + "failcnt")
                table[size] = hugetlb_entry(used, peak or 0, failures or 0)
                break
    return table

"""Raw numbers of a container's cgroups, file by file; giving them a shape is the reader's business.

Loaded by `events` and the supervisor only.
"""

from __future__ import annotations

from sysvisor_runc.cgroup.file import failure, read_if_there
from sysvisor_runc.cgroup.layout import UNIFIED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.manager import Manager

    Value = int | dict[str, int] | str

_V1 = {
    "cpu": ("cpu.stat",),
    "cpuacct": ("cpuacct.usage", "cpuacct.usage_percpu", "cpuacct.usage_all", "cpuacct.stat"),
    "memory": (
        "memory.stat",
        *(
            f"memory.{kind}{what}"
            for kind in ("", "memsw.", "kmem.", "kmem.tcp.")
            for what in ("usage_in_bytes", "max_usage_in_bytes", "failcnt", "limit_in_bytes")
        ),
        "memory.use_hierarchy",
        "memory.numa_stat",
        "memory.oom_control",
    ),
    "pids": ("pids.current", "pids.max"),
    "blkio": tuple(
        f"blkio.{scheduler}{what}"
        for scheduler in ("throttle.", "bfq.", "")
        for what in ("io_service_bytes_recursive", "io_serviced_recursive", "io_service_bytes", "io_serviced")
    ),
    "cpuset": ("cpuset.cpus", "cpuset.mems", "cpuset.memory_pressure"),
    "rdma": ("rdma.current", "rdma.max"),
}
_V2 = (
    *("cpu.stat", "cpu.pressure", "cpuset.cpus.effective", "cpuset.mems.effective"),
    *("memory.stat", "memory.current", "memory.max", "memory.peak", "memory.events", "memory.pressure"),
    *("memory.swap.current", "memory.swap.max", "memory.swap.peak", "memory.swap.events"),
    *("pids.current", "pids.max", "io.stat", "io.pressure", "rdma.current", "rdma.max", "misc.current"),
)


def stats(manager: Manager) -> dict[str, Value]:
    """Control file → its number, its `key value` table, or its text where it is neither; files not there are left out.

    Raises:
        CgroupError: a file is there and cannot be read.
    """
    wanted: list[tuple[str, str]] = []
    if manager.v2:
        wanted += [(manager.paths[UNIFIED], file) for file in _V2]
    else:
        for controller, files in _V1.items():
            if controller in manager.paths:
                wanted += [(manager.paths[controller], file) for file in files]
    table: dict[str, Value] = {}
    for path, file in wanted:
        try:
            text = read_if_there(f"{path}/{file}")
        except OSError as e:
            raise failure("read", f"{path}/{file}", e) from None
        if text is not None:
            table[file] = parse(text)
    return table


def parse(text: str) -> Value:
    """A number, a flat keyed table (every line `key number`), or the text as it is."""
    if text.isdigit():
        return int(text)
    table = keyed(text)
    return table if table and len(table) == len(text.splitlines()) else text


def keyed(text: str) -> dict[str, int]:
    """A flat keyed file, `key value` per line; lines whose value is no number are left out."""
    table = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.isdigit():
            table[key] = int(value)
    return table


def oom_kills(manager: Manager) -> int:
    """How many processes the kernel killed for want of memory here; 0 where it does not count."""
    path = manager.paths.get(UNIFIED if manager.v2 else "memory")
    if path is None:
        return 0
    text = read_if_there(path + ("/memory.events" if manager.v2 else "/memory.oom_control"))
    return keyed(text or "").get("oom_kill", 0)

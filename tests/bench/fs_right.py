"""Whether the numbers that a container is shown are those of its cgroup's files."""

import os
import pathlib
import time
from collections.abc import Callable

from sysvisor_fs.origins import cgroups_of, start_ticks
from sysvisor_fs.views import memory
from tests.bench import report
from tests.bench.fs_sides import MEMORY, Side, cpus

_BURN = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
_HZ = os.sysconf("SC_CLK_TCK")


class Truth:
    """What the kernel says of a container, read now."""

    def __init__(self, pid: int) -> None:
        cgroups = cgroups_of(pid)
        unified = cgroups.get("unified", "")
        names = memory.V1 if "memory" in cgroups else memory.V2
        place = cgroups.get("memory", unified)
        self.limit = int(_text(f"{place}/{names.limit}"))
        self.used = int(_text(f"{place}/{names.usage}"))
        if "cpuacct" in cgroups:
            usage = [int(_text(f"{cgroups['cpuacct']}/cpuacct.usage_{part}")) for part in ("user", "sys")]
        else:
            lines = dict(line.split() for line in _text(f"{unified}/cpu.stat").splitlines())
            usage = [int(lines[f"{part}_usec"]) * 1000 for part in ("user", "system")]
        self.busy = sum(usage) / 1e9
        self.age = time.clock_gettime(time.CLOCK_BOOTTIME) - start_ticks(pid) / _HZ


def _text(path: str) -> str:
    return pathlib.Path(path).read_text().strip()


def between(low: float, high: float, slack: float) -> Callable[[float], bool]:
    """Whether a number that was read between two looks can be right."""
    return lambda found: min(low, high) - slack <= found <= max(low, high) + slack


def checks(side: Side) -> list[tuple[str, float, float, bool]]:
    """What, the number shown, what the cgroup says, whether that agrees."""
    side.inside("sh", "-c", _BURN)  # some CPU time, for there to be something to count
    pid = side.pid()
    before = Truth(pid)
    meminfo = dict(line.split(":") for line in side.inside("cat", "/proc/meminfo").splitlines())
    kib = {name: int(value.split()[0]) for name, value in meminfo.items()}
    stat = [line.split() for line in side.inside("cat", "/proc/stat").splitlines()]
    processors = side.inside("cat", "/proc/cpuinfo").split("\n\n")
    up, idle = map(float, side.inside("cat", "/proc/uptime").split())
    after = Truth(pid)
    total = stat[0][1:]
    busy = (int(total[0]) + int(total[2])) / _HZ
    count = cpus(os.cpu_count() or 1)
    rows: list[tuple[str, float, float, Callable[[float], bool]]] = [
        ("MemTotal, MiB", kib["MemTotal"] / 1024, before.limit / (1 << 20), between(MEMORY >> 20, MEMORY >> 20, 0)),
        ("MemTotal - MemFree, MiB", (kib["MemTotal"] - kib["MemFree"]) / 1024, after.used / (1 << 20),
         between(before.used / (1 << 20), after.used / (1 << 20), 8)),
        ("CPUs in cpuinfo", sum("processor" in one for one in processors), count, between(count, count, 0)),
        ("CPUs in stat", sum(line[0][:3] == "cpu" for line in stat) - 1, count, between(count, count, 0)),
        ("CPU time in stat, s", busy, after.busy, between(before.busy, after.busy, 0.05)),
        ("uptime, s", up, after.age, between(before.age, after.age, 0.2)),
        ("idle in uptime, s", idle, after.age * count - after.busy,
         between(before.age * count - before.busy, after.age * count - after.busy, 0.5)),
    ]  # fmt: skip
    return [(what, found, truth, holds(found)) for what, found, truth, holds in rows]


def table(sides: list[Side], progress: report.Progress) -> str:
    """All of them, of both servers."""
    rows = []
    for side in sides:
        progress.step(f"the numbers of {side.name}")
        for what, found, truth, holds in checks(side):
            rows.append([what, side.name, f"{found:.2f}", f"{truth:.2f}", "right" if holds else "WRONG"])
    rows.sort(key=lambda row: row[0])
    return report.table(["number", "server", "shown", "cgroup", ""], rows)

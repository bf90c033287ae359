"""Load averages of containers: the kernel's own formula, fed every five seconds with the tasks that run or wait.

A container that has used no CPU time since the last look has no running task, so an idle one costs one read.
"""

from __future__ import annotations

import os
import time
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from sysvisor_fs.views import files
from sysvisor_fs.views.hierarchy import home

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sysvisor_fs.node import Container

# include/linux/sched/loadavg.h: fixed point with 11 bits, exp(-5s/1min), exp(-5s/5min), exp(-5s/15min).
FIXED_1 = 1 << 11
EXP = (1884, 2014, 2037)
PERIOD_NS = 5_000_000_000
KEY = "view/load"
_SAVE_EVERY = 12
_IDLE_NS = 10_000_000  # of CPU time within a period, below which nobody is taken to run
_DEEPEST = 8
_LONGEST = 1 << 14  # tasks, and cgroups, that are looked at
_DIGITS = 8  # of a pid with the line's end: pid_max is 4194304


class Load(NamedTuple):
    """Averages in fixed point, and what was seen last.

    Attributes:
        averages: over 1, 5 and 15 minutes.
        running, blocked, tasks: at the last look.
        last_pid: the newest process, by its number inside.
        at: when that was, nanoseconds on the boot clock.
        used: the CPU time until then.
    """

    averages: tuple[int, int, int]
    running: int = 0
    blocked: int = 0
    tasks: int = 0
    last_pid: int = 0
    at: int = 0
    used: int = 0


_loads: dict[str, Load] = {}
_ticks = 0


def calc_load(load: int, exp: int, active: int) -> int:
    """kernel/sched/loadavg.c, calc_load(): `active` in fixed point."""
    new = load * exp + active * (FIXED_1 - exp)
    if active >= load:
        new += FIXED_1 - 1
    return new // FIXED_1


def after(load: Load, periods: int, active: int) -> tuple[int, int, int]:
    """The averages after some periods of the same number of tasks."""
    one, five, fifteen = load.averages
    for _ in range(min(periods, 1000)):  # by then they are all there
        one, five, fifteen = (calc_load(a, e, active * FIXED_1) for a, e in zip((one, five, fifteen), EXP, strict=True))
    return one, five, fifteen


def tick(containers: Iterable[Container]) -> None:
    """Take one sample of each; called every five seconds on a thread that may wait."""
    global _ticks
    _ticks += 1
    seen = set()
    for container in containers:
        seen.add(container.id)
        load = _loads[container.id] = _sample(container, _known(container))
        if _ticks % _SAVE_EVERY == 0:
            _save(container, load)
    for gone in set(_loads) - seen:
        _loads.pop(gone, None)


def load_of(container: Container) -> Load:
    """What is known, without looking: how long that takes is the container's to choose, and the thread is ours."""
    return _known(container)


def _known(container: Container) -> Load:
    """The last sample, or what was saved before the daemon was replaced."""
    load = _loads.get(container.id)
    if load is not None:
        return load
    try:
        one, five, fifteen, at = (int(word) for word in container.values.get(KEY, b"").split())
    except ValueError:
        return Load((0, 0, 0))
    return Load((one, five, fifteen), at=at)


def _save(container: Container, load: Load) -> None:
    text = " ".join(map(str, (*load.averages, load.at))).encode()
    old = container.values.get(KEY)
    if any(load.averages) or (old is not None and not old.startswith(b"0 0 0 ")):
        container.values[KEY] = text


def _sample(container: Container, before: Load) -> Load:
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    used = _used_ns(container)
    periods = round((now - before.at) / PERIOD_NS) if before.at else 1
    quiet = before.at and periods and used - before.used < _IDLE_NS * periods and not before.blocked
    counted = before._replace(running=0, blocked=0) if quiet else _count(container)
    averages = after(before, periods, counted.running + counted.blocked)
    at = before.at + periods * PERIOD_NS if before.at else now
    return counted._replace(averages=averages, at=at, used=used)


def _used_ns(container: Container) -> int:
    """CPU time that all its processes have had, in one look: an idle machine may have a thousand containers."""
    place = home(container, "cpuacct")
    if place is None:
        return 0
    if place.v2:
        return files.table(files.once(f"{place.path}/cpu.stat")).get(b"usage_usec", 0) * 1000
    return int(files.once(f"{place.path}/cpuacct.usage") or 0)


def _count(container: Container) -> Load:
    running = blocked = tasks = newest = 0
    for pid in _processes(container):
        newest = max(newest, pid)
        if tasks >= _LONGEST:
            break
        for state in islice(_states(pid), _LONGEST - tasks):
            tasks += 1
            running += state == b"R"
            blocked += state == b"D"
    return Load((0, 0, 0), running, blocked, tasks, _number_inside(newest))


def _processes(container: Container) -> Iterator[int]:
    """Every process of the container's cgroup and those that it has made."""
    place = next((found for name in ("cpuacct", "pids", "memory") if (found := home(container, name))), None)
    waiting = [(place.path, 0)] if place is not None else []
    seen = len(waiting)
    while waiting:
        path, depth = waiting.pop()
        yield from _members(path)
        if depth < _DEEPEST:
            below = list(islice(_below(path), _LONGEST - seen))
            seen += len(below)
            waiting.extend((one, depth + 1) for one in below)


def _members(path: str) -> list[int]:
    """The processes of one cgroup. Not through `files`, whose descriptors are for what is read over and over."""
    try:
        with open(f"{path}/cgroup.procs", "rb", buffering=0) as file:
            text = b"".join(iter(lambda: file.read(_DIGITS * _LONGEST), b""))
    except OSError:
        return []  # it has gone, or lists nobody (a threaded one of v2)
    return [int(word) for word in text.split()[:_LONGEST]]


def _below(path: str) -> Iterator[str]:
    try:
        with os.scandir(path) as entries:
            yield from (entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return


def _states(pid: int) -> Iterator[bytes]:
    """The state of each of its threads, as one letter."""
    try:
        with os.scandir(f"/proc/{pid}/task") as tasks:
            for task in tasks:
                with open(f"{task.path}/stat", "rb") as file:
                    yield file.read().rpartition(b")")[2][1:2]
    except OSError:
        return  # it has ended


def _number_inside(pid: int) -> int:
    """A process's number in the innermost pid namespace but one level at least: the container's."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"NSpid:"):
                    numbers = line.split()[1:]
                    return int(numbers[1] if len(numbers) > 1 else numbers[0])
    except OSError:
        pass
    return 0

"""Which CPUs a container has, and how busy they have been.

It has those of its cpuset, and no more than its quota pays for (the least of all levels, rounded up). They are told as
CPUs 0, 1, …; its CPU time is spread evenly over them, since v2 does not say where it was spent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sysvisor_fs.views import files
from sysvisor_fs.views.clock import age_ns
from sysvisor_fs.views.hierarchy import bounding, home, levels

if TYPE_CHECKING:
    from sysvisor_fs.node import Container

ONLINE = "/sys/devices/system/cpu/online"
KEY = "view/cpu"
_MOST = 1024
_lists: dict[bytes, tuple[int, ...]] = {}  # what was parsed, by its text: the same few come again and again
_epochs: dict[bytes, _Epoch] = {}


def parse_list(text: bytes) -> tuple[int, ...]:
    """The kernel's lists: `0-2,5`."""
    known = _lists.get(text)
    if known is not None:
        return known
    found: list[int] = []
    for part in text.strip().split(b","):
        first, _, last = part.partition(b"-")
        if first:
            found.extend(range(int(first), int(last or first) + 1))
    if len(_lists) >= _MOST:
        _lists.clear()
    _lists[text] = answer = tuple(found)
    return answer


def format_list(cpus: tuple[int, ...] | list[int]) -> bytes:
    """The opposite of `parse_list`, with the line's end."""
    parts: list[str] = []
    at = 0
    while at < len(cpus):
        end = at
        while end + 1 < len(cpus) and cpus[end + 1] == cpus[end] + 1:
            end += 1
        parts.append(str(cpus[at]) if end == at else f"{cpus[at]}-{cpus[end]}")
        at = end + 1
    return ",".join(parts).encode() + b"\n"


def visible(container: Container) -> tuple[int, ...]:
    """The host's numbers of the container's CPUs, at least one."""
    cpus = _cpuset(container)
    quota = quota_of(container)
    if quota is not None:
        cpus = cpus[: max(1, -(-quota[0] // quota[1]))]
    return cpus


def _cpuset(container: Container) -> tuple[int, ...]:
    place = home(container, "cpuset")
    if place is not None:
        name = "cpuset.cpus.effective" if place.v2 else "cpuset.effective_cpus"
        for level in levels(place.path):
            text = files.read_or_none(f"{level}/{name}")
            if text is None and not place.v2:
                text = files.read_or_none(f"{level}/cpuset.cpus")
            if text is not None and (cpus := parse_list(text)):
                return cpus
    return parse_list(files.host(ONLINE, 1.0))


def quota_of(container: Container) -> tuple[int, int] | None:
    """The tightest `(quota, period)` of all levels in microseconds; None where none limits."""
    place = home(container, "cpu")
    if place is None:
        return None
    found: tuple[int, int] | None = None
    for level in bounding(place.path):
        limit = _quota_v2(level) if place.v2 else _quota_v1(level)
        if limit is not None and (found is None or limit[0] * found[1] < found[0] * limit[1]):
            found = limit
    return found


def _quota_v2(level: str) -> tuple[int, int] | None:
    words = (files.read_or_none(f"{level}/cpu.max") or b"max").split()
    return None if words[0] == b"max" else (int(words[0]), int(words[1]))


def _quota_v1(level: str) -> tuple[int, int] | None:
    quota = files.number(f"{level}/cpu.cfs_quota_us")
    if quota is None or quota <= 0:
        return None
    return quota, files.number(f"{level}/cpu.cfs_period_us") or 100_000


def usage_ns(container: Container) -> tuple[int, int]:
    """CPU time that all its processes have had, `(user, system)`."""
    place = home(container, "cpuacct")
    if place is None:
        return 0, 0
    if not place.v2:
        user = files.number(f"{place.path}/cpuacct.usage_user") or 0
        return user, files.number(f"{place.path}/cpuacct.usage_sys") or 0
    # Every v2 cgroup has these lines, the controller on or off.
    stat = files.table(files.read_or_none(f"{place.path}/cpu.stat") or b"")
    return stat.get(b"user_usec", 0) * 1000, stat.get(b"system_usec", 0) * 1000


class Busy(NamedTuple):
    """Nanoseconds of one CPU since the container started."""

    user: int
    system: int
    idle: int


class _Epoch(NamedTuple):
    """Since when the number of CPUs is what it is, and what had been told until then."""

    cpus: int
    age: int
    user: int
    system: int
    base: tuple[Busy, ...]


def busy(container: Container) -> list[Busy]:
    """Each of its CPUs. No number goes back when the count of CPUs changes: what was told before stays told."""
    count, age = len(visible(container)), age_ns(container)
    user, system = usage_ns(container)
    epoch = _load(container.values.get(KEY))
    if epoch is None:
        epoch = _Epoch(count, 0, 0, 0, (Busy(0, 0, 0),) * count)
        container.values[KEY] = _dump(epoch)
    elif epoch.cpus != count:
        epoch = continued(epoch, count, age, user, system)
        container.values[KEY] = _dump(epoch)
    return _told(epoch, age, user, system)[:count]


def continued(epoch: _Epoch, count: int, age: int, user: int, system: int) -> _Epoch:
    """From now on there are `count` CPUs."""
    if count == epoch.cpus:
        return epoch
    told = _told(epoch, age, user, system)
    new = [Busy(0, 0, 0)] * (count - len(told))
    return _Epoch(count, age, user, system, (*told, *new))


def _told(epoch: _Epoch, age: int, user: int, system: int) -> list[Busy]:
    more_user = max(0, user - epoch.user) // epoch.cpus
    more_system = max(0, system - epoch.system) // epoch.cpus
    more_idle = max(0, age - epoch.age - more_user - more_system)
    # CPUs beyond the count are off now: what they have told stands still, for the day they come back.
    return [
        Busy(past.user + more_user, past.system + more_system, past.idle + more_idle) if at < epoch.cpus else past
        for at, past in enumerate(epoch.base)
    ]


def _dump(epoch: _Epoch) -> bytes:
    numbers = [*epoch[:4], *(value for cpu in epoch.base for value in cpu)]
    return " ".join(map(str, numbers)).encode()


def _load(data: bytes | None) -> _Epoch | None:
    if not data:
        return None
    known = _epochs.get(data)
    if known is not None:
        return known
    try:
        numbers = [int(word) for word in data.split()]
        base = tuple(Busy(*numbers[at : at + 3]) for at in range(4, len(numbers), 3))
        epoch = _Epoch(numbers[0], numbers[1], numbers[2], numbers[3], base)
    except (ValueError, TypeError, IndexError):
        return None
    if not 0 < epoch.cpus <= len(base):
        return None
    if len(_epochs) >= _MOST:
        _epochs.clear()
    _epochs[data] = epoch
    return epoch

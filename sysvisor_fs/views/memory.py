"""How much memory and swap a container has, and what it uses them for.

Every level from its cgroup up binds: what a container can still get is the least of what each level and the host have
left. `free` is that without what the container itself would have to give up for it, so that
`total - free - cache` is what its processes use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sysvisor_fs.views import files
from sysvisor_fs.views.hierarchy import bounding, home, levels

if TYPE_CHECKING:
    from sysvisor_fs.node import Container

HOST_AGE = 0.02  # seconds; the host's numbers only bound the container's
_UNLIMITED = 1 << 60  # v1 says 9223372036854771712 for none

# Our name for a number of memory.stat, and what v2 and v1 call it.
_NAMES: dict[str, tuple[bytes, bytes]] = {
    "anon": (b"anon", b"total_rss"),
    "file": (b"file", b"total_cache"),
    "shmem": (b"shmem", b"total_shmem"),
    "mapped": (b"file_mapped", b"total_mapped_file"),
    "dirty": (b"file_dirty", b"total_dirty"),
    "writeback": (b"file_writeback", b"total_writeback"),
    "swapcached": (b"swapcached", b"total_swapcached"),
    "active_anon": (b"active_anon", b"total_active_anon"),
    "inactive_anon": (b"inactive_anon", b"total_inactive_anon"),
    "active_file": (b"active_file", b"total_active_file"),
    "inactive_file": (b"inactive_file", b"total_inactive_file"),
    "unevictable": (b"unevictable", b"total_unevictable"),
    "anon_huge": (b"anon_thp", b"total_rss_huge"),
    "shmem_huge": (b"shmem_thp", b""),
    "file_huge": (b"file_thp", b""),
    "kernel_stack": (b"kernel_stack", b""),
    "pagetables": (b"pagetables", b""),
    "sec_pagetables": (b"sec_pagetables", b""),
    "percpu": (b"percpu", b""),
    "vmalloc": (b"vmalloc", b""),
    "zswap": (b"zswap", b""),
    "zswapped": (b"zswapped", b""),
    "reclaimable": (b"slab_reclaimable", b""),
    "unreclaimable": (b"slab_unreclaimable", b""),
}
_V2 = tuple((name, both[0]) for name, both in _NAMES.items())
_V1 = tuple((name, both[1]) for name, both in _NAMES.items())


_SUBTREE = b"total_cache "  # with what v1's memory.stat begins to tell of the cgroups below as well
_parsed: tuple[bytes, dict[bytes, int]] = b"", {}


class Files(NamedTuple):
    """What the files of one version are called."""

    limit: str
    usage: str
    swap_limit: str
    swap_usage: str


V2 = Files("memory.max", "memory.current", "memory.swap.max", "memory.swap.current")
# The v1 swap files count memory as well.
V1 = Files(
    "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes"
)


class Memory(NamedTuple):
    """Bytes. `parts` has the names of `_NAMES`."""

    total: int
    free: int
    available: int
    swap_total: int
    swap_free: int
    parts: dict[str, int]


class Host(NamedTuple):
    """Bytes of the whole machine."""

    total: int
    available: int
    swap_total: int
    swap_free: int


def host_lines() -> dict[bytes, int]:
    """The host's meminfo: kB by name, in its order."""
    global _parsed
    text = files.host("/proc/meminfo", HOST_AGE)
    known = _parsed
    if known[0] is not text:
        words = (line.split() for line in text.splitlines())
        _parsed = known = text, {entry[0][:-1]: int(entry[1]) for entry in words if len(entry) > 1}
    return known[1]


def host_of(lines: dict[bytes, int]) -> Host:
    """What bounds every container."""
    available = lines.get(b"MemAvailable", lines[b"MemFree"])
    return Host(*(kb << 10 for kb in (lines[b"MemTotal"], available, lines[b"SwapTotal"], lines[b"SwapFree"])))


def memory(container: Container, host: Host) -> Memory | None:
    """The container's numbers; None where it has no cgroup that counts memory."""
    place = home(container, "memory")
    if place is None:
        return None
    names = V2 if place.v2 else V1
    own = _level_that_counts(place.path, names)
    if own is None:
        return None
    parts = _parts(f"{own}/memory.stat", place.v2)
    if not place.v2:
        # v1 tells the kernel's memory as one number.
        parts["unreclaimable"] = files.number(f"{own}/memory.kmem.usage_in_bytes") or 0
    reclaimable = _reclaimable(parts)
    total, available = host.total, min(host.total, host.available)
    for level in bounding(own):
        limit = _limit(f"{level}/{names.limit}")
        if limit is None or limit >= host.total:
            continue
        total = min(total, limit)
        below = parts if level == own else _parts(f"{level}/memory.stat", place.v2)
        usage = files.number(f"{level}/{names.usage}") or 0
        available = min(available, max(0, limit - usage) + min(usage, _reclaimable(below)))
    available = min(available, total)
    free = min(max(0, available - reclaimable), max(0, total - _accounted(parts)))
    swap_total = swap_free = 0
    if host.swap_total:
        swap_total, swap_free = (_swap_v2 if place.v2 else _swap_v1)(own, host)
    return Memory(total, free, available, swap_total, swap_free, parts)


def _level_that_counts(path: str, names: Files) -> str | None:
    """The nearest level whose memory is counted: on v2 a controller may be off where nothing is limited."""
    for level in levels(path):
        if files.read_or_none(f"{level}/{names.usage}") is not None:
            return level
    return None


def _parts(path: str, v2: bool) -> dict[str, int]:
    text = files.read_or_none(path) or b""
    if not v2:
        text = text[max(0, text.find(_SUBTREE)) :]
    found = files.table(text)
    return {name: found.get(key, 0) for name, key in (_V2 if v2 else _V1)}


def _reclaimable(parts: dict[str, int]) -> int:
    """What can be had back without writing to swap."""
    return parts["active_file"] + parts["inactive_file"] + parts["reclaimable"]


def _accounted(parts: dict[str, int]) -> int:
    """What is surely in use: the kernel's counters are not of one instant, and no line shall contradict another."""
    return parts["anon"] + parts["file"] + parts["reclaimable"] + parts["unreclaimable"]


def _limit(path: str) -> int | None:
    limit = files.number(path)
    return None if limit is None or limit >= _UNLIMITED else limit


def _swap_v2(own: str, host: Host) -> tuple[int, int]:
    """`(total, free)`: the host's, less where a level allows less."""
    total, left = host.swap_total, host.swap_free
    used = files.number(f"{own}/memory.swap.current") or 0
    for level in bounding(own):
        limit = _limit(f"{level}/memory.swap.max")
        if limit is not None:
            total = min(total, limit)
            left = min(left, max(0, limit - (files.number(f"{level}/memory.swap.current") or 0)))
    return total, max(0, min(left, total - used))


def _swap_v1(own: str, host: Host) -> tuple[int, int]:
    """As `_swap_v2`: v1 limits memory and swap together, so swap is what that allows beyond memory."""
    total, left = host.swap_total, host.swap_free
    used = _beyond(own, V1.swap_usage, V1.usage)
    for level in bounding(own):
        both, alone = _limit(f"{level}/{V1.swap_limit}"), _limit(f"{level}/{V1.limit}")
        if both is not None:
            limit = max(0, both - (alone if alone is not None else 0))
            total = min(total, limit)
            left = min(left, max(0, limit - _beyond(level, V1.swap_usage, V1.usage)))
    return total, max(0, min(left, total - used))


def _beyond(level: str, both: str, alone: str) -> int:
    return max(0, (files.number(f"{level}/{both}") or 0) - (files.number(f"{level}/{alone}") or 0))

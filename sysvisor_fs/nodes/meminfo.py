"""/proc/meminfo and /proc/swaps: a container's memory, in the lines that this kernel has.

Where a line has no counterpart in a cgroup it is 0 if it counts what somebody uses, and the host's if it describes the
machine (DirectMap, VmallocTotal, the pools of huge pages).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sysvisor_fs.node import FOREVER, File
from sysvisor_fs.views import files
from sysvisor_fs.views.memory import host_lines, host_of, memory

if TYPE_CHECKING:
    from sysvisor_fs.node import Caller, Container
    from sysvisor_fs.views.memory import Memory

OVERCOMMIT_RATIO = "/proc/sys/vm/overcommit_ratio"
_HOSTS = frozenset(
    (b"VmallocTotal", b"VmallocChunk", b"HardwareCorrupted", b"Hugepagesize", b"Hugetlb", b"HugePages_Total",
     b"HugePages_Free", b"HugePages_Rsvd", b"HugePages_Surp", b"DirectMap4k", b"DirectMap2M", b"DirectMap4M",
     b"DirectMap1G")
)  # fmt: skip
# Which lines of the host, their template, and the names of the places in it.
_latest: tuple[dict[bytes, int], bytes, list[bytes]] = {}, b"", []
_COUNTS = (b"HugePages_Total", b"HugePages_Free", b"HugePages_Rsvd", b"HugePages_Surp")


def _commit_limit(m: Memory) -> int:
    ratio = files.number(OVERCOMMIT_RATIO)
    return m.total * (50 if ratio is None else ratio) // 100 + m.swap_total


def lines_of(m: Memory) -> dict[bytes, int]:
    """Bytes by the name of the line."""
    p = m.parts
    return {
        b"MemTotal": m.total,
        b"MemFree": m.free,
        b"MemAvailable": m.available,
        b"Cached": max(0, p["file"] - p["swapcached"]),
        b"SwapCached": p["swapcached"],
        b"Active": p["active_anon"] + p["active_file"],
        b"Inactive": p["inactive_anon"] + p["inactive_file"],
        b"Active(anon)": p["active_anon"],
        b"Inactive(anon)": p["inactive_anon"],
        b"Active(file)": p["active_file"],
        b"Inactive(file)": p["inactive_file"],
        b"Unevictable": p["unevictable"],
        b"Mlocked": p["unevictable"],
        b"SwapTotal": m.swap_total,
        b"SwapFree": m.swap_free,
        b"Zswap": p["zswap"],
        b"Zswapped": p["zswapped"],
        b"Dirty": p["dirty"],
        b"Writeback": p["writeback"],
        b"AnonPages": p["anon"],
        b"Mapped": p["mapped"],
        b"Shmem": p["shmem"],
        b"KReclaimable": p["reclaimable"],
        b"Slab": p["reclaimable"] + p["unreclaimable"],
        b"SReclaimable": p["reclaimable"],
        b"SUnreclaim": p["unreclaimable"],
        b"KernelStack": p["kernel_stack"],
        b"PageTables": p["pagetables"],
        b"SecPageTables": p["sec_pagetables"],
        b"CommitLimit": _commit_limit(m),
        b"Committed_AS": p["anon"] + p["shmem"] + m.swap_total - m.swap_free,
        b"VmallocUsed": p["vmalloc"],
        b"Percpu": p["percpu"],
        b"AnonHugePages": p["anon_huge"],
        b"ShmemHugePages": p["shmem_huge"],
        b"FileHugePages": p["file_huge"],
    }


def _template(host: dict[bytes, int], own: dict[bytes, int]) -> tuple[bytes, list[bytes]]:
    """The text of this kernel's lines, and the names of the container's numbers in the order of their places in it."""
    text, names = [], []
    for name, kb in host.items():
        if name in own:
            names.append(name)
        value = b"%8d" if name in own else b"%8d" % (kb if name in _HOSTS else 0)
        text.append(b"%-16s%s%s\n" % (name + b":", value, b"" if name in _COUNTS else b" kB"))
    return b"".join(text), names


def meminfo(host: dict[bytes, int], view: Memory) -> bytes:
    """The text for a container, given the host's lines."""
    global _latest
    own = lines_of(view)
    known, template, names = _latest
    if known is not host:
        template, names = _template(host, own)
        _latest = host, template, names
    return template % tuple([own[name] >> 10 for name in names])


class Meminfo(File):
    """/proc/meminfo."""

    valid = FOREVER

    def read(self, container: Container, caller: Caller) -> bytes:
        """Without a cgroup that counts memory, the host's."""
        lines = host_lines()
        view = memory(container, host_of(lines))
        return meminfo(lines, view) if view is not None else files.host("/proc/meminfo", 0)


class Swaps(File):
    """/proc/swaps: one device that stands for what the container may swap."""

    valid = FOREVER

    def read(self, container: Container, caller: Caller) -> bytes:
        """The header alone where there is no swap, which programs take for that."""
        host = host_of(host_lines())
        view = memory(container, host)
        total, free = (view.swap_total, view.swap_free) if view else (host.swap_total, host.swap_free)
        text = b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
        if total:
            text += b"%-40s%-16s%d\t\t%d\t\t%d\n" % (b"none", b"virtual", total >> 10, total - free >> 10, 0)
        return text

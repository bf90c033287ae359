"""All that is served, as one tree for every container, and what must be done now and then for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sysvisor_fs.node import Branch
from sysvisor_fs.nodes import cpudirs, sysctl_table, sysfs
from sysvisor_fs.nodes.disks import Diskstats
from sysvisor_fs.nodes.meminfo import Meminfo, Swaps
from sysvisor_fs.nodes.pressure import Pressure, Slabinfo
from sysvisor_fs.nodes.processor import Cpuinfo, Loadavg, Stat, Uptime
from sysvisor_fs.nodes.sysctl import SysctlDirectory
from sysvisor_fs.passthrough import deputy
from sysvisor_fs.views import load
from sysvisor_runc import log

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysvisor_fs.node import Container, Directory, Node


def build_tree() -> Directory:
    """The root. Files that this kernel does not have are not in it: there would be nothing to lay them over."""
    proc: dict[str, Node] = {
        "cpuinfo": Cpuinfo(),
        "diskstats": Diskstats(),
        "loadavg": Loadavg(),
        "meminfo": Meminfo(),
        "slabinfo": Slabinfo(),
        "stat": Stat(),
        "swaps": Swaps(),
        "uptime": Uptime(),
    }
    proc = {name: node for name, node in proc.items() if os.path.exists(f"/proc/{name}")}
    if pressures := _listed("/proc/pressure"):
        proc["pressure"] = Branch({name: Pressure(name) for name in pressures})
    proc["sys"] = SysctlDirectory()
    devices = Branch({"system": Branch({"cpu": cpudirs.CpusDirectory()}), "virtual": sysfs.virtual()})
    parameters = sysfs.conntrack_parameters(sysctl_table.HASHSIZE)
    module = sysfs.IfThere("module", {"nf_conntrack": Branch({"parameters": parameters})})
    return Branch(
        {"proc": Branch(proc), "sys": Branch({"devices": devices, "kernel": sysfs.kernel(), "module": module})}
    )


def _listed(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        return []


def prepare() -> None:
    """Once, while the process has one thread."""
    deputy.prepare()


def tick(containers: Iterable[Container]) -> None:
    """Every five seconds, on a thread that may wait: a sample of every load; helpers that left are collected."""
    if not deputy.is_able():
        # It can be forked by a process with one thread only: readers wait for the next daemon, as after any crash.
        log.error("the process that enters user and pid namespaces has ended: giving way to another daemon")
        os._exit(70)
    load.tick(containers)
    deputy.reap()

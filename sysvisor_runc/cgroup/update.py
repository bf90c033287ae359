"""`update`: new resources over the stored ones. Pure; loaded by that verb alone."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import BlockIO, LinuxResources


def to_apply(stored: LinuxResources, new: LinuxResources) -> LinuxResources:
    """What `settings.convert` needs for an update: `new`, completed by `stored` where values only make sense together.

    That is quota with period (one file on v2), and memory with memory+swap (v2 counts swap alone). Whatever `new` does
    not touch is not written again: a value that something else has changed meanwhile stays.
    """
    result = new.copy()
    if cpu := new.get("cpu"):
        old_cpu = stored.get("cpu", {})
        cpu = cpu.copy()
        if bool(cpu.get("quota")) != bool(cpu.get("period")):
            cpu.setdefault("quota", old_cpu.get("quota", 0))
            cpu.setdefault("period", old_cpu.get("period", 0))
        result["cpu"] = cpu
    if memory := new.get("memory"):
        old_memory = stored.get("memory", {})
        memory = memory.copy()
        if memory.get("swap") and not memory.get("limit"):
            memory["limit"] = old_memory.get("limit", 0)
        elif memory.get("limit", 0) > 0 and not memory.get("swap"):
            memory["swap"] = old_memory.get("swap", 0)
        result["memory"] = memory
    return result


def to_store(stored: LinuxResources, new: LinuxResources) -> LinuxResources:
    """What the record says afterwards: `stored` with every value that `new` sets replaced."""
    result = stored.copy()
    if "cpu" in new:
        result["cpu"] = {**stored.get("cpu", {}), **new["cpu"]}
    if "memory" in new:
        result["memory"] = {**stored.get("memory", {}), **new["memory"]}
        if new["memory"].get("limit") == -1 and not new["memory"].get("swap"):
            result["memory"]["swap"] = 0  # no limit on memory means none on memory and swap
    if "pids" in new:
        result["pids"] = {**stored.get("pids", {}), **new["pids"]}
    if "network" in new:
        result["network"] = {**stored.get("network", {}), **new["network"]}
    if "blockIO" in new:
        result["blockIO"] = _block_io(stored.get("blockIO", {}), new["blockIO"])
    if "hugepageLimits" in new:
        sizes = {item["pageSize"] for item in new["hugepageLimits"]}
        kept = [item for item in stored.get("hugepageLimits", []) if item["pageSize"] not in sizes]
        result["hugepageLimits"] = kept + new["hugepageLimits"]
    if "rdma" in new:
        result["rdma"] = {**stored.get("rdma", {}), **new["rdma"]}
    if "unified" in new:
        result["unified"] = {**stored.get("unified", {}), **new["unified"]}
    return result


def _block_io(stored: BlockIO, new: BlockIO) -> BlockIO:
    """Devices are told apart by their number; a new entry replaces the old one."""
    result: BlockIO = {**stored, **new}
    for key in ("throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice", "throttleWriteIOPSDevice"):
        if key in stored and key in new:
            named = {(item["major"], item["minor"]) for item in new[key]}
            result[key] = [item for item in stored[key] if (item["major"], item["minor"]) not in named] + new[key]
    if "weightDevice" in stored and "weightDevice" in new:
        named = {(item["major"], item["minor"]) for item in new["weightDevice"]}
        kept = [item for item in stored["weightDevice"] if (item["major"], item["minor"]) not in named]
        result["weightDevice"] = kept + new["weightDevice"]
    return result

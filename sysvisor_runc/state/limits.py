"""Merging changed resource limits into those that a container has. Pure.

An update names only what changes. What it does not name keeps its value, in the record as in the kernel.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import LinuxResources

# Lists whose elements are about something: an element replaces the one about the same thing, or is added.
_KEYS = {
    "weightDevice": ("major", "minor"),
    "throttleReadBpsDevice": ("major", "minor"),
    "throttleWriteBpsDevice": ("major", "minor"),
    "throttleReadIOPSDevice": ("major", "minor"),
    "throttleWriteIOPSDevice": ("major", "minor"),
    "hugepageLimits": ("pageSize",),
    "priorities": ("name",),
}

# Values that clients send for what they do not want to change, and that no control file is written for.
_UNSET = {
    "memory": ("limit", "reservation", "swap"),
    "cpu": ("shares", "quota", "period", "realtimeRuntime", "realtimePeriod", "cpus", "mems"),
    "blockIO": ("weight", "leafWeight"),
}


def complete(change: LinuxResources) -> LinuxResources:
    """`change` without what it leaves as it is, and with what follows from it, as runc has it.

    Device rules cannot be updated and are left out.
    """
    changed = merge({}, {key: value for key, value in change.items() if key != "devices"})
    for name, fields in _UNSET.items():
        section = changed.get(name)
        if isinstance(section, dict):
            for field in fields:
                if not section.get(field, True):
                    del section[field]
    memory = changed.get("memory")
    if isinstance(memory, dict):
        # Kernel memory is limited together with all other since Linux 5.4.
        for obsolete in ("kernel", "kernelTCP"):
            memory.pop(obsolete, None)
        if memory:
            # A check asked for once is not asked for ever.
            memory.setdefault("checkBeforeUpdate", False)
        if memory.get("limit") == -1:
            # Without a limit on memory one on memory and swap together makes no sense.
            memory.setdefault("swap", 0)
    cpu = changed.get("cpu")
    if isinstance(cpu, dict) and "idle" in cpu:
        # An idle group has a fixed weight, and the kernel refuses another one.
        cpu.setdefault("shares", 0)
    for name in [name for name, value in changed.items() if value in ({}, [])]:
        del changed[name]
    return changed  # type: ignore[return-value]  # merging keeps the shape


def merged(current: LinuxResources, change: LinuxResources) -> LinuxResources:
    """`current` with `change` on top; neither is modified. For what each change means see `complete`."""
    return merge(dict(current), dict(change))  # type: ignore[return-value]  # merging keeps the shape


def touched(resources: LinuxResources, change: LinuxResources) -> LinuxResources:
    """The part of merged `resources` that has to be written for `change`.

    Whole sections, because their values depend on each other (a quota and its period, memory and swap), but of
    `unified` only what is new: its files may overlap with any section.
    """
    part = {key: value for key, value in resources.items() if key in change and key != "unified"}
    if "unified" in change:
        part["unified"] = change["unified"]
    return part  # type: ignore[return-value]  # a part of the same shape


def merge(current: dict[str, object], change: dict[str, object]) -> dict[str, object]:
    """Objects are merged, lists by the keys of their elements where they have any, all else is replaced."""
    result = dict(current)
    for name, new in change.items():
        old = result.get(name)
        if isinstance(new, dict):
            result[name] = merge(old if isinstance(old, dict) else {}, new)
        elif isinstance(new, list) and name in _KEYS:
            result[name] = _merge_list(old if isinstance(old, list) else [], new, _KEYS[name])
        else:
            result[name] = new
    return result


def _merge_list(current: list[object], change: list[object], keys: tuple[str, ...]) -> list[object]:
    result = list(current)
    for new in change:
        # From the end: of two elements about the same thing the last one counts.
        for index in range(len(result) - 1, -1, -1):
            old = result[index]
            if isinstance(old, dict) and isinstance(new, dict) and all(old.get(k) == new.get(k) for k in keys):
                result[index] = old | new
                break
        else:
            result.append(new)
    return result

"""The rules for what few configurations have: loaded by `rules` only when the field is there.

Split off for the sake of start-up time alone; the contract is that of `rules`.
"""

from __future__ import annotations

from itertools import pairwise

from sysvisor_runc.errors import SpecError
from sysvisor_runc.spec.schema import MPOL_FLAGS, MPOL_MODES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import HugepageLimit, IDMapping, MemoryPolicy, Mount, Process, Scheduler
    from sysvisor_runc.spec.view import View

_IFNAMSIZ = 16
# A user namespace takes so many lines of map (user_namespaces(7), Linux 4.15).
_MAP_LINES = 340
# An arbitrary bound on CPU and NUMA node numbers, the same as runc's.
_MAX_ID = 64 * 1024


def check_scheduling(process: Process) -> None:
    """Scheduler, I/O priority and CPU affinity."""
    if "scheduler" in process:
        _check_scheduler(process["scheduler"])
    priority = process["ioPriority"]["priority"] if "ioPriority" in process else 0
    if not 0 <= priority <= 7:
        raise SpecError("process.ioPriority.priority", f"invalid ioPriority.Priority: {priority}, expected 0 to 7")
    affinity = process.get("execCPUAffinity", {})
    for which, text in (("initial", affinity.get("initial", "")), ("final", affinity.get("final", ""))):
        _id_set(f"process.execCPUAffinity.{which}", f"bad CPU affinity {text!r}", text)


def _check_scheduler(scheduler: Scheduler) -> None:
    # sched_setattr(2)
    policy = scheduler["policy"]
    nice = scheduler.get("nice", 0)
    if policy in ("SCHED_OTHER", "SCHED_BATCH") and not -20 <= nice <= 19:
        raise SpecError("process.scheduler.nice", f"invalid scheduler.nice: {nice} when scheduler.policy is {policy}")
    if scheduler.get("priority", 0) and policy not in ("SCHED_FIFO", "SCHED_RR"):
        problem = "scheduler.priority can only be specified for SCHED_FIFO or SCHED_RR policy"
        raise SpecError("process.scheduler.priority", problem)
    if policy != "SCHED_DEADLINE" and (
        scheduler.get("runtime") or scheduler.get("deadline") or scheduler.get("period")
    ):
        problem = "scheduler runtime/deadline/period can only be specified for SCHED_DEADLINE policy"
        raise SpecError("process.scheduler", problem)


def check_net_devices(view: View) -> None:
    """Network devices that move into the container."""
    path = "linux.netDevices"
    if not view.has("network"):
        raise SpecError(path, "unable to move network devices without a NET namespace")
    if view.rootless:
        raise SpecError(path, "network devices are not supported for rootless containers")
    for name, device in view.linux.get("netDevices", {}).items():
        for wanted in (name, device.get("name") or name):
            if not _is_device_name(wanted):
                raise SpecError(path, f"invalid network device name {wanted!r}")


def _is_device_name(name: str) -> bool:
    # dev_valid_name() in net/core/dev.c
    if name in ("", ".", "..") or len(name.encode("utf-8", "surrogatepass")) >= _IFNAMSIZ:
        return False
    return not any(character in "/:\0" or character.isspace() for character in name)


def check_map(path: str, kind: str, mappings: list[IDMapping] | None) -> None:
    """One map of the container's user namespace; `kind` is uid or gid."""
    if not mappings:
        raise SpecError(path, f"user namespaces enabled, but no {kind} mappings found")
    _check_ranges(path, mappings)
    if not any(mapping["containerID"] == 0 for mapping in mappings):
        raise SpecError(path, f"user namespaces enabled, but no mapping found for {kind} 0")


def _check_ranges(path: str, mappings: list[IDMapping]) -> None:
    """What the kernel refuses in a uid_map: empty, overflowing and overlapping ranges, and too many of them."""
    if len(mappings) > _MAP_LINES:
        raise SpecError(path, f"{len(mappings)} ranges, the kernel takes {_MAP_LINES}")
    for index, mapping in enumerate(mappings):
        if not mapping["size"]:
            raise SpecError(f"{path}[{index}].size", "must not be 0")
        if max(mapping["containerID"], mapping["hostID"]) + mapping["size"] > 0xFFFFFFFF:
            raise SpecError(f"{path}[{index}]", "the range goes beyond the last id, 4294967294")
    for side in (
        sorted((mapping["containerID"], mapping["size"]) for mapping in mappings),
        sorted((mapping["hostID"], mapping["size"]) for mapping in mappings),
    ):
        for (first, size), (following, _) in pairwise(side):
            if first + size > following:
                raise SpecError(path, f"the ranges overlap at {following}")


def check_time_offsets(view: View) -> None:
    """The offsets of a time namespace."""
    path = "linux.timeOffsets"
    for clock in view.linux.get("timeOffsets", {}):
        if clock not in ("boottime", "monotonic"):
            raise SpecError(path, f"unknown clock {clock!r}, expected boottime or monotonic")
    if view.spaces.get("time"):
        problem = "time namespace enabled, but both namespace path and time offsets specified"
        raise SpecError(path, f"{problem} -- you may only provide one")
    if not view.has("time"):
        raise SpecError(path, "time namespace offsets specified, but time namespace isn't enabled in the config")


def check_idmap(view: View, path: str, mount: Mount) -> None:
    """An ID-mapped mount."""
    options = mount.get("options", ())
    if not ("bind" in options or "rbind" in options or mount.get("type") == "bind"):
        raise SpecError(path, "id-mapped mounts are only supported for bind-mounts")
    if view.rootless:
        raise SpecError(path, "id-mapped mounts are not supported for rootless containers")
    uids, gids = mount.get("uidMappings"), mount.get("gidMappings")
    if uids is None and gids is None and view.has("user"):
        # Those of the container's user namespace are meant.
        return
    if not uids or not gids:
        raise SpecError(path, "id-mapped mounts must have both uid and gid mappings specified")
    _check_ranges(path + ".uidMappings", uids)
    _check_ranges(path + ".gidMappings", gids)


def check_memory_policy(policy: MemoryPolicy) -> None:
    """The NUMA policy; set_mempolicy(2)."""
    path = "linux.memoryPolicy"
    mode = policy["mode"]
    if mode not in MPOL_MODES:
        raise SpecError(f"{path}.mode", f"invalid memory policy mode {mode!r}")
    nodes = policy.get("nodes", "")
    ranges = _id_set(f"{path}.nodes", f"invalid memory policy nodes {nodes!r}", nodes)
    for index, flag in enumerate(policy.get("flags", ())):
        if flag not in MPOL_FLAGS:
            raise SpecError(f"{path}.flags[{index}]", f"invalid memory policy flag {flag!r}")
    if mode in ("MPOL_DEFAULT", "MPOL_LOCAL"):
        if ranges:
            count = len({node for first, last in ranges for node in range(first, last + 1)})
            raise SpecError(f"{path}.nodes", f"memory policy mode requires 0 nodes but got {count}")
    elif mode != "MPOL_PREFERRED" and not ranges:
        raise SpecError(f"{path}.nodes", "memory policy mode requires at least one node but got 0")


def check_page_sizes(path: str, limits: list[HugepageLimit]) -> None:
    """The page sizes of limits on huge pages."""
    for index, limit in enumerate(limits):
        size = limit["pageSize"]
        if size[-2:] not in ("KB", "MB", "GB") or not _is_number(size[:-2]) or size[0] == "0":
            problem = f"invalid page size {size!r}, expected a number and KB, MB or GB, such as 2MB"
            raise SpecError(f"{path}[{index}].pageSize", problem)


def _id_set(path: str, problem: str, text: str) -> list[tuple[int, int]]:
    try:
        return parse_ids(text)
    except ValueError as error:
        raise SpecError(path, f"{problem}: {error}") from None


def parse_ids(text: str) -> list[tuple[int, int]]:
    """The ranges of a list of CPUs or nodes such as `0-3,5`, as (first, last); ValueError says what is wrong.

    Spaces around and nothing between two commas are allowed, as by the kernel.
    """
    ranges = []
    for part in map(str.strip, text.split(",")):
        if not part:
            continue
        first, dash, last = part.partition("-")
        if not _is_number(first) or (dash and not _is_number(last)):
            raise ValueError(f"{part!r} is not a number or a range")
        low, high = _bounded(first), _bounded(last or first)
        if low > high:
            raise ValueError(f"invalid range: {part}")
        ranges.append((low, high))
    if text and not ranges:
        raise ValueError(f"no members found in set {text!r}")
    return ranges


def _bounded(digits: str) -> int:
    digits = digits.lstrip("0") or "0"
    if len(digits) > len(str(_MAX_ID)) or int(digits) > _MAX_ID:
        raise ValueError(f"values larger than {_MAX_ID} are not supported")
    return int(digits)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()

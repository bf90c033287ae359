"""What a well-formed configuration must mean to be usable: rules between fields, as runc and the kernel enforce them.

Runs after the shape check, so every field has its type. Looks at the host for two things only: whether a network
namespace given by path is the caller's own, and whether SELinux is there.
"""

from __future__ import annotations

import os
from itertools import pairwise

from sysvisor_runc.errors import SpecError
from sysvisor_runc.spec import schema

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sysvisor_runc.spec.types import (
        IDMapping,
        Linux,
        LinuxResources,
        MemoryPolicy,
        Mount,
        Process,
        Scheduler,
        Seccomp,
        Spec,
    )

_IFNAMSIZ = 16
_HOST_NAME_MAX = 64
# A user namespace takes so many lines of map (user_namespaces(7), Linux 4.15).
_MAP_LINES = 340
# An arbitrary bound on CPU and NUMA node numbers, the same as runc's.
_MAX_ID = 64 * 1024

_IPC_SYSCTLS = frozenset(
    [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ]
)


class _View:
    """A configuration with its namespaces looked up: `spaces` maps each type to its path, empty for a new one."""

    __slots__ = ("added", "linux", "rootless", "spaces", "spec", "warn")

    def __init__(self, spec: Spec, warn: list[str], rootless: bool, added: Collection[str]) -> None:
        self.spec = spec
        self.linux: Linux = spec.get("linux", {})
        self.warn = warn
        self.rootless = rootless
        self.added = added
        self.spaces: dict[str, str] = {}

    def has(self, namespace: str) -> bool:
        return namespace in self.spaces or namespace in self.added


def check_spec(spec: Spec, warn: list[str], *, runnable: bool, rootless: bool, added: Collection[str]) -> None:
    """Raises SpecError for the first rule that is broken; see `validate` for the arguments."""
    _check_version(spec["ociVersion"])
    view = _View(spec, warn, rootless, added)
    present: Collection[str] = spec
    if "root" in present:
        if not spec["root"]["path"]:
            raise SpecError("root.path", "must not be empty")
    elif runnable:
        raise SpecError("root", "is required but missing: root must be specified")
    if "process" in present:
        check_process(spec["process"], warn)
    elif runnable:
        raise SpecError("process", "is required but missing: process property must not be empty")
    _check_namespaces(view)
    _check_names(view)
    _check_mappings(view)
    _check_time_offsets(view)
    _check_mounts(view)
    _check_sysctls(view)
    _check_linux(view)
    _check_hooks(view)


def _check_version(version: str) -> None:
    # Pre-releases of 1.0 and their suffixes (1.0.2-dev) are in use.
    if version.split(".", maxsplit=1)[0] != "1":
        raise SpecError("ociVersion", f"unsupported version {version!r}, expected 1.x")


def check_process(process: Process, warn: list[str]) -> None:
    """The rules of a process, alone or inside a configuration."""
    cwd = process["cwd"]
    if not cwd.startswith("/"):
        problem = "Cwd must be an absolute path" if cwd else "Cwd property must not be empty"
        raise SpecError("process.cwd", problem)
    if not process.get("args"):
        raise SpecError("process.args", "args must not be empty")
    for index, variable in enumerate(process.get("env", ())):
        if variable.find("=") < 1:
            problem = "name cannot be empty" if "=" in variable else "missing '='"
            raise SpecError(f"process.env[{index}]", f"invalid environment variable {variable!r}: {problem}")
    _check_rlimits(process)
    if "scheduler" in process:
        _check_scheduler(process["scheduler"])
    priority = process["ioPriority"]["priority"] if "ioPriority" in process else 0
    if not 0 <= priority <= 7:
        raise SpecError("process.ioPriority.priority", f"invalid ioPriority.Priority: {priority}, expected 0 to 7")
    for which, text in process.get("execCPUAffinity", {}).items():
        if which in ("initial", "final"):
            _id_set(f"process.execCPUAffinity.{which}", f"bad CPU affinity {text!r}", str(text))
    _check_capabilities(process, warn)
    if process.get("selinuxLabel") and not os.path.exists("/sys/fs/selinux/enforce"):
        problem = "selinux label is specified in config, but selinux is disabled or not supported"
        raise SpecError("process.selinuxLabel", problem)


def _check_rlimits(process: Process) -> None:
    seen = set()
    for index, limit in enumerate(process.get("rlimits", ())):
        path = f"process.rlimits[{index}]"
        if limit["type"] in seen:
            raise SpecError(path + ".type", f"{limit['type']} is given twice")
        seen.add(limit["type"])
        if limit["soft"] > limit["hard"]:
            raise SpecError(path, f"soft limit {limit['soft']} is above the hard limit {limit['hard']}")


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


def _check_capabilities(process: Process, warn: list[str]) -> None:
    sets: Iterable[object] = process.get("capabilities", {}).values()
    unknown = {name for names in sets if isinstance(names, list) for name in names}.difference(schema.CAPABILITIES)
    if unknown:
        warn.append(f"process.capabilities: ignoring unknown capabilities: {', '.join(sorted(map(str, unknown)))}")


def _check_namespaces(view: _View) -> None:
    for index, namespace in enumerate(view.linux.get("namespaces", ())):
        kind = namespace["type"]
        if kind in view.spaces:
            raise SpecError(f"linux.namespaces[{index}].type", f"malformed spec file: duplicated ns {kind!r}")
        view.spaces[kind] = namespace.get("path", "")
    for field in ("maskedPaths", "readonlyPaths"):
        if view.linux.get(field) and not view.has("mount"):
            raise SpecError(f"linux.{field}", "unable to restrict sys entries without a private MNT namespace")


def _check_names(view: _View) -> None:
    for field in ("hostname", "domainname"):
        name = str(view.spec.get(field, ""))
        if name and not view.has("uts"):
            raise SpecError(field, f"unable to set {field} without a private UTS namespace")
        if len(name.encode("utf-8", "surrogatepass")) > _HOST_NAME_MAX:
            raise SpecError(field, f"is longer than {_HOST_NAME_MAX} bytes")
    devices = view.linux.get("netDevices")
    if not devices:
        return
    if not view.has("network"):
        raise SpecError("linux.netDevices", "unable to move network devices without a NET namespace")
    if view.rootless:
        raise SpecError("linux.netDevices", "network devices are not supported for rootless containers")
    for name, device in devices.items():
        for wanted in (name, device.get("name") or name):
            if not _is_device_name(wanted):
                raise SpecError("linux.netDevices", f"invalid network device name {wanted!r}")


def _is_device_name(name: str) -> bool:
    # dev_valid_name() in net/core/dev.c
    if name in ("", ".", "..") or len(name.encode("utf-8", "surrogatepass")) >= _IFNAMSIZ:
        return False
    return not any(character in "/:" or character.isspace() for character in name)


def _check_mappings(view: _View) -> None:
    linux = view.linux
    uids, gids = linux.get("uidMappings"), linux.get("gidMappings")
    if "user" not in view.spaces:
        if (uids is not None or gids is not None) and "user" not in view.added:
            problem = "user namespace mappings specified, but user namespace isn't enabled in the config"
            raise SpecError("linux.gidMappings" if uids is None else "linux.uidMappings", problem)
        if view.rootless and "user" not in view.added:
            raise SpecError("linux.namespaces", "rootless container requires user namespaces")
    elif view.spaces["user"]:
        if uids or gids:
            view.warn.append("linux.uidMappings: both a user namespace path and mappings are given; they must agree")
        return
    elif not uids and not gids and "user" not in view.added:
        problem = "user namespaces enabled, but no namespace path to join nor mappings to apply specified"
        raise SpecError("linux.namespaces", problem)
    if not uids and not gids:
        # The conversion is going to choose them, or there is no user namespace.
        return
    _check_map("linux.uidMappings", "uid", uids)
    _check_map("linux.gidMappings", "gid", gids)


def _check_map(path: str, kind: str, mappings: list[IDMapping] | None) -> None:
    if not mappings:
        raise SpecError(path, f"user namespaces enabled, but no {kind} mappings found")
    check_ranges(path, mappings)
    if not any(mapping["containerID"] == 0 for mapping in mappings):
        raise SpecError(path, f"user namespaces enabled, but no mapping found for {kind} 0")


def check_ranges(path: str, mappings: list[IDMapping]) -> None:
    """What the kernel refuses in a uid_map: empty, overflowing and overlapping ranges, and too many of them."""
    if len(mappings) > _MAP_LINES:
        raise SpecError(path, f"{len(mappings)} ranges, the kernel takes {_MAP_LINES}")
    for index, mapping in enumerate(mappings):
        if not mapping["size"]:
            raise SpecError(f"{path}[{index}].size", "must not be 0")
        if max(mapping["containerID"], mapping["hostID"]) + mapping["size"] > 0xFFFFFFFF:
            raise SpecError(f"{path}[{index}]", "the range goes beyond the last id, 4294967294")
    if len(mappings) < 2:
        return
    for side in (
        sorted((mapping["containerID"], mapping["size"]) for mapping in mappings),
        sorted((mapping["hostID"], mapping["size"]) for mapping in mappings),
    ):
        for (first, size), (following, _) in pairwise(side):
            if first + size > following:
                raise SpecError(path, f"the ranges overlap at {following}")


def _check_time_offsets(view: _View) -> None:
    offsets = view.linux.get("timeOffsets")
    if offsets is None:
        return
    for clock in offsets:
        if clock not in ("boottime", "monotonic"):
            raise SpecError("linux.timeOffsets", f"unknown clock {clock!r}, expected boottime or monotonic")
    if view.spaces.get("time"):
        problem = "time namespace enabled, but both namespace path and time offsets specified"
        raise SpecError("linux.timeOffsets", f"{problem} -- you may only provide one")
    if not view.has("time"):
        problem = "time namespace offsets specified, but time namespace isn't enabled in the config"
        raise SpecError("linux.timeOffsets", problem)


def _check_mounts(view: _View) -> None:
    for index, mount in enumerate(view.spec.get("mounts", ())):
        if not mount["destination"].startswith("/"):
            view.warn.append(
                f"mounts[{index}].destination: mount destination {mount['destination']} is not absolute, "
                "it is taken to be relative to /"
            )
        options = mount.get("options", ())
        if "bind" in options or "rbind" in options:
            for option in options:
                if option not in schema.MOUNT_OPTIONS:
                    problem = f"bind mounts cannot have any filesystem-specific options applied, such as {option!r}"
                    raise SpecError(f"mounts[{index}].options", problem)
        if "uidMappings" in mount or "gidMappings" in mount or "idmap" in options or "ridmap" in options:
            _check_idmap(view, f"mounts[{index}]", mount)


def _check_idmap(view: _View, path: str, mount: Mount) -> None:
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
    check_ranges(path + ".uidMappings", uids)
    check_ranges(path + ".gidMappings", gids)


def _check_sysctls(view: _View) -> None:
    for key in view.linux.get("sysctl", ()):
        name = sysctl_name(key)
        problem = None
        if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
            if not view.has("ipc"):
                problem = f"sysctl {name!r} is not allowed in the hosts ipc namespace"
        elif name.startswith("net."):
            if not view.has("network") or _is_own_network(view.spaces.get("network", "")):
                problem = f"sysctl {name!r} not allowed in host network namespace"
        elif name == "kernel.hostname" and view.has("uts"):
            problem = f"sysctl {name!r} is not allowed as it conflicts with the OCI 'hostname' field"
        elif name.startswith("user."):
            if not view.has("user"):
                problem = f"setting ucounts without a user namespace not allowed: {name}"
        elif name != "kernel.domainname" or not view.has("uts"):
            problem = f"sysctl {name!r} is not in a separate kernel namespace"
        if problem:
            raise SpecError(f'linux.sysctl["{key}"]', problem)


def sysctl_name(key: str) -> str:
    """The name with dots between its parts; whichever of `.` and `/` comes first in `key` separates (sysctl(8))."""
    dot, slash = key.find("."), key.find("/")
    if slash == -1 or -1 < dot < slash:
        return key
    return key.translate({ord("."): "/", ord("/"): "."})


def _is_own_network(path: str) -> bool:
    if not path:
        return False
    try:
        theirs, ours = os.stat(path), os.stat("/proc/self/ns/net")
    except OSError:
        # Joining it is going to fail with a better message.
        return False
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


def _check_linux(view: _View) -> None:
    linux = view.linux
    if "resources" in linux:
        check_resources(linux["resources"], view.warn, "linux.resources")
    if "seccomp" in linux:
        _check_seccomp(linux["seccomp"])
    if "memoryPolicy" in linux:
        _check_memory_policy(linux["memoryPolicy"])
    if linux.get("personality", {}).get("flags"):
        view.warn.append("linux.personality.flags: ignored, no flag is defined yet")
    clos = linux.get("intelRdt", {}).get("closID", "")
    if clos in (".", "..") or (len(clos) > 1 and "/" in clos):
        raise SpecError("linux.intelRdt.closID", f"invalid intelRdt.ClosID {clos!r}")


def check_resources(resources: LinuxResources, warn: list[str], path: str) -> None:
    """The rules of resource limits, alone or inside a configuration."""
    for index, device in enumerate(resources.get("devices", ())):
        access = device.get("access", "")
        if not access:
            raise SpecError(f"{path}.devices[{index}].access", f"device access at {index} field cannot be empty")
        if access.strip("rwm"):
            raise SpecError(f"{path}.devices[{index}].access", f"unknown device access {access!r}, expected r, w and m")
    for index, limit in enumerate(resources.get("hugepageLimits", ())):
        size = limit["pageSize"]
        if size[-2:] not in ("KB", "MB", "GB") or not _is_number(size[:-2]) or size[0] == "0":
            problem = f"invalid page size {size!r}, expected a number and KB, MB or GB, such as 2MB"
            raise SpecError(f"{path}.hugepageLimits[{index}].pageSize", problem)
    memory = resources.get("memory", {})
    if "kernel" in memory or "kernelTCP" in memory:
        warn.append(f"{path}.memory.kernel: kernel memory settings are ignored")


def _check_seccomp(seccomp: Seccomp) -> None:
    path = "linux.seccomp"
    syscalls = seccomp.get("syscalls", ())
    if not seccomp["defaultAction"] and syscalls:
        raise SpecError(f"{path}.defaultAction", "is required but missing")
    if seccomp["defaultAction"] == "SCMP_ACT_NOTIFY":
        raise SpecError(f"{path}.defaultAction", "SCMP_ACT_NOTIFY cannot be used as default action")
    for index, syscall in enumerate(syscalls):
        if syscall["action"] == "SCMP_ACT_NOTIFY" and "write" in syscall["names"]:
            # The process that has loaded the filter must still be able to hand the listener over.
            problem = "SCMP_ACT_NOTIFY cannot be used for the write syscall"
            raise SpecError(f"{path}.syscalls[{index}].action", problem)
        if "" in syscall["names"]:
            raise SpecError(f"{path}.syscalls[{index}].names", "empty string is not a valid syscall")


def _check_memory_policy(policy: MemoryPolicy) -> None:
    # set_mempolicy(2)
    path = "linux.memoryPolicy"
    mode = policy["mode"]
    if mode not in schema.MPOL_MODES:
        raise SpecError(f"{path}.mode", f"invalid memory policy mode {mode!r}")
    nodes = policy.get("nodes", "")
    count = sum(
        last - first + 1 for first, last in _id_set(f"{path}.nodes", f"invalid memory policy nodes {nodes!r}", nodes)
    )
    for index, flag in enumerate(policy.get("flags", ())):
        if flag not in schema.MPOL_FLAGS:
            raise SpecError(f"{path}.flags[{index}]", f"invalid memory policy flag {flag!r}")
    if mode in ("MPOL_DEFAULT", "MPOL_LOCAL"):
        if count:
            raise SpecError(f"{path}.nodes", f"memory policy mode requires 0 nodes but got {count}")
    elif mode != "MPOL_PREFERRED" and not count:
        raise SpecError(f"{path}.nodes", "memory policy mode requires at least one node but got 0")


def _id_set(path: str, problem: str, text: str) -> list[tuple[int, int]]:
    try:
        return parse_ids(text)
    except ValueError as error:
        raise SpecError(path, f"{problem}: {error}") from None


def parse_ids(text: str) -> list[tuple[int, int]]:
    """The ranges of a list of CPUs or nodes such as `0-3,5`, as (first, last); ValueError says what is wrong.

    Spaces around and empty elements between commas are allowed, as by the kernel.
    """
    ranges = []
    for part in text.split(","):
        part = part.strip()
        if not part:
            continue
        first, dash, last = part.partition("-")
        if not _is_number(first) or (dash and not _is_number(last)):
            raise ValueError(f"{part!r} is not a number or a range")
        low, high = int(first[:10]), int((last or first)[:10])
        if max(low, high) > _MAX_ID:
            raise ValueError(f"values larger than {_MAX_ID} are not supported")
        if low > high:
            raise ValueError(f"invalid range: {part}")
        ranges.append((low, high))
    if text and not ranges:
        raise ValueError(f"no members found in set {text!r}")
    return ranges


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _check_hooks(view: _View) -> None:
    for kind, hooks in view.spec.get("hooks", {}).items():
        if kind not in schema.HOOKS or not isinstance(hooks, list):
            continue
        for index, hook in enumerate(hooks):
            if not hook["path"]:
                raise SpecError(f"hooks.{kind}[{index}].path", "must not be empty")
            if not hook["path"].startswith("/"):
                view.warn.append(f"hooks.{kind}[{index}].path: {hook['path']} is not absolute")

"""`process` of config.json as the child needs it. Pure; used for `run`, `create` and `exec` alike."""

from __future__ import annotations

from sysvisor_runc import log
from sysvisor_runc.child.identity import Capabilities, Identity
from sysvisor_runc.child.plan import ProcessPlan
from sysvisor_runc.errors import SpecError
from sysvisor_runc.kernel import capability

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Capabilities as CapabilitiesSpec
    from sysvisor_runc.spec.types import MemoryPolicy, Personality, Process

# include/uapi/linux/resource.h, asm-generic
RLIMITS = {
    "RLIMIT_CPU": 0, "RLIMIT_FSIZE": 1, "RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_CORE": 4, "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6, "RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9, "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11, "RLIMIT_MSGQUEUE": 12, "RLIMIT_NICE": 13, "RLIMIT_RTPRIO": 14, "RLIMIT_RTTIME": 15,
}  # fmt: skip
_RLIM_INFINITY = (1 << 64) - 1
# include/uapi/linux/personality.h
_DOMAINS = {"LINUX": 0x0000, "LINUX32": 0x0008}
# include/uapi/linux/mempolicy.h
_MEMORY_MODES = {
    "MPOL_DEFAULT": 0, "MPOL_PREFERRED": 1, "MPOL_BIND": 2, "MPOL_INTERLEAVE": 3, "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5, "MPOL_WEIGHTED_INTERLEAVE": 6,
}  # fmt: skip
_MEMORY_FLAGS = {"MPOL_F_STATIC_NODES": 1 << 15, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_NUMA_BALANCING": 1 << 13}


def process_plan(process: Process, *, held: int, where: str = "process") -> ProcessPlan:
    """The plan for `process`; `held` are the capabilities that the process will have to give away from."""
    user = process["user"]
    capabilities = process.get("capabilities")
    identity = Identity(
        user.get("uid", 0),
        user.get("gid", 0),
        user.get("additionalGids") or [],
        None if capabilities is None else _capabilities(capabilities, held),
        no_new_privs=process.get("noNewPrivileges", False),
    )
    plan = ProcessPlan(process["args"], environment(process.get("env") or [], where), process["cwd"], identity)
    plan.umask = user.get("umask")
    plan.apparmor = process.get("apparmorProfile") or ""
    plan.selinux = process.get("selinuxLabel") or ""
    if plan.apparmor or plan.selinux:
        _check_label(plan, where)
    return plan


def _check_label(plan: ProcessPlan, where: str) -> None:
    from sysvisor_runc.plan.tags import require

    if plan.apparmor:
        require("apparmor", f"{where}.apparmorProfile")
    if plan.selinux:
        require("selinux", f"{where}.selinuxLabel")


def environment(env: list[str], where: str) -> list[str]:
    """`env` with the last of several entries for a name winning, in place of the first (as runc does)."""
    entries: dict[str, str] = {}
    for index, entry in enumerate(env):
        name, equals, _ = entry.partition("=")
        if not equals or not name:
            raise SpecError(f"{where}.env[{index}]", f"invalid environment variable {entry!r}: expected NAME=VALUE")
        if "\0" in entry:
            raise SpecError(f"{where}.env[{index}]", f"environment variable {name!r} contains a null byte")
        entries[name] = entry
    return list(entries.values())


def _capabilities(sets: CapabilitiesSpec, held: int) -> Capabilities:
    unknown: set[str] = set()
    bounding, effective = _mask(sets.get("bounding"), unknown), _mask(sets.get("effective"), unknown)
    permitted, ambient = _mask(sets.get("permitted"), unknown), _mask(sets.get("ambient"), unknown)
    inheritable = _mask(sets.get("inheritable"), unknown)
    if unknown:
        log.warning(f"ignoring unknown or unavailable capabilities: {' '.join(sorted(unknown))}")
    wanted = bounding | permitted | inheritable
    lacking = wanted & ~held
    if lacking:
        names = " ".join(n for i, n in enumerate(capability.NAMES) if lacking >> i & 1)
        log.warning(f"ignoring capabilities that the caller itself lacks: {names}")
    permitted &= held
    if ambient:
        from sysvisor_runc.plan import tags

        if not tags.has("ambient"):
            log.warning("ignoring ambient capabilities: support for them is not built into this program")
            ambient = 0
    for number in range(ambient.bit_length()):
        if (ambient & ~lacking & ~(permitted & inheritable)) >> number & 1:
            name = capability.NAMES[number]
            log.warning(f"can't raise ambient capability {name}: it must be permitted and inheritable")
    return Capabilities(bounding & held, effective & permitted, permitted, inheritable & held, ambient & permitted)


def _mask(names: list[str] | None, unknown: set[str]) -> int:
    mask = 0
    for name in names or ():
        number = capability.number(name)
        if number is None:
            unknown.add(name)
        else:
            mask |= 1 << number
    return mask


def persona(personality: Personality) -> int:
    """The argument of personality(2); flags are not supported by the runtime-spec so far."""
    if personality.get("flags"):
        raise SpecError("linux.personality.flags", "personality flags are not supported")
    domain = personality["domain"]
    if domain not in _DOMAINS:
        raise SpecError("linux.personality.domain", f"unknown domain {domain!r}", hint="LINUX or LINUX32")
    return _DOMAINS[domain]


def memory_policy(policy: MemoryPolicy) -> tuple[int, bytes, int]:
    """Mode with flags, node mask and its length in bits, as set_mempolicy(2) takes them."""
    mode = _MEMORY_MODES[policy["mode"]]
    for flag in policy.get("flags") or []:
        mode |= _MEMORY_FLAGS[flag]
    nodes = cpu_list(policy.get("nodes") or "", "linux.memoryPolicy.nodes")
    if not nodes:
        return mode, b"", 0
    mask = sum(1 << node for node in nodes)
    size = (max(nodes) // 64 + 1) * 8
    # The kernel reads one bit fewer than it is told (set_mempolicy(2), maxnode).
    return mode, mask.to_bytes(size, "little"), size * 8 + 1


def cpu_list(text: str, where: str) -> list[int]:
    """The numbers of a list such as `0-3,7` (cpuset(7), "List format").

    Raises:
        SpecError: it is none.
    """
    numbers: set[int] = set()
    for part in text.replace(" ", "").split(","):
        if not part:
            continue
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise SpecError(where, f"invalid list {text!r}")
        low, high = int(first), int(last or first)
        if high < low or high > 1 << 16:
            raise SpecError(where, f"invalid range {part!r}")
        numbers.update(range(low, high + 1))
    return sorted(numbers)


def rlimits(process: Process) -> list[tuple[int, str, int, int]]:
    """(resource, name, soft, hard) for prlimit(2); -1 in config.json's unsigned numbers is RLIM_INFINITY."""
    return [
        (RLIMITS[limit["type"]], limit["type"], limit["soft"] & _RLIM_INFINITY, limit["hard"] & _RLIM_INFINITY)
        for limit in process.get("rlimits") or ()
    ]

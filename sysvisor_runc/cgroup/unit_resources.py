"""`linux.resources` → properties of a systemd unit (systemd.resource-control(5)).

Pure. systemd has no property for much of it, so the cgroup files are written as well, in any case; the properties see
to it that systemd does not set back what we wrote the next time it looks at the unit.
"""

from __future__ import annotations

from sysvisor_runc.cgroup.device_rule import ANY
from sysvisor_runc.cgroup.devices import Devices
from sysvisor_runc.cgroup.resources_v2 import cpu_weight, io_weight, swap_max
from sysvisor_runc.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.cgroup.unit import Property
    from sysvisor_runc.spec.types import CPU, LinuxResources, Memory

INFINITY = 2**64 - 1
_DEFAULT_PERIOD = 100000  # µs
# systemd keeps a quota as a whole percentage of a CPU.
_STEP = 10000  # µs a second
# The version of systemd that a property came with; an older one refuses the whole call.
_SINCE = {"CPUQuotaPeriodUSec": 242, "AllowedCPUs": 244, "AllowedMemoryNodes": 244, "OOMPolicy": 253}
_IDLE_SINCE = 252

_UNIFIED_LIMITS = {
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.min": "MemoryMin",
    "memory.max": "MemoryMax",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
}
_UNIFIED_SETS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}


def rounded(resources: LinuxResources) -> LinuxResources:
    """`resources` with the CPU quota that systemd will make of it: the next whole percentage of a CPU.

    What is written to the file must agree, or child cgroups could be given more than the file allows.
    """
    cpu = resources.get("cpu") or {}
    quota, period = cpu.get("quota", 0), cpu.get("period", 0) or _DEFAULT_PERIOD
    if quota <= 0:
        return resources
    result = resources.copy()
    if quota * 1_000_000 // period % _STEP:
        result["cpu"] = {**cpu, "quota": _per_second(quota, period) * period // 1_000_000}
    return result


def convert(resources: LinuxResources, *, v2: bool, version: Callable[[], int], devices: bool = True) -> list[Property]:
    """The properties for `resources`; `version` tells systemd's, and is asked only where it matters.

    The device rules come along unless `devices` is False, as for an update.

    Raises:
        SpecError: values that contradict each other, or a `unified` one that cannot be read.
    """
    found: list[Property] = []
    if devices:
        found += device_policy(Devices(resources.get("devices", [])), v2=v2)
    found += _memory(resources.get("memory") or {}, v2=v2)
    cpu = resources.get("cpu") or {}
    found += _weight(cpu, v2=v2, version=version)
    found += _quota(cpu.get("quota", 0), cpu.get("period", 0))
    found += [
        (name, ("ay", bits(text, f"linux.resources.cpu.{field}")))
        for name, field, text in (
            ("AllowedCPUs", "cpus", cpu.get("cpus")),
            ("AllowedMemoryNodes", "mems", cpu.get("mems")),
        )
        if text
    ]
    weight = (resources.get("blockIO") or {}).get("weight")
    if weight:
        found.append(("IOWeight", ("t", io_weight(weight))) if v2 else ("BlockIOWeight", ("t", weight)))
    limit = (resources.get("pids") or {}).get("limit")
    if limit is not None:
        found.append(("TasksMax", ("t", INFINITY if limit < 0 else max(limit, 1))))
    if v2:
        found += _unified(resources.get("unified") or {}, version, creating=devices)
    return [one for one in found if one[0] not in _SINCE or version() >= _SINCE[one[0]]]


def unset(properties: list[Property]) -> list[Property]:
    """What takes `properties` back: the same ones with the values that mean "nothing is set"."""
    found: list[Property] = []
    for name, (type_, _) in properties:
        if type_ == "t":
            found.append((name, (type_, 0 if name == "MemoryLow" or name == "MemoryMin" else INFINITY)))
        elif type_ == "ay":
            found.append((name, (type_, b"")))
    return found


def bits(text: str, where: str) -> bytes:
    """A list of CPUs or nodes such as `0,2-3` as a bit mask, the lowest first.

    Raises:
        SpecError: it is no such list, or names none.
    """
    mask = 0
    try:
        for part in text.split(","):
            if not part.strip():
                continue
            first, dash, last = part.partition("-")
            low, high = int(first), int(last if dash else first)
            if not 0 <= low <= high < 1 << 16:
                raise ValueError(part)
            mask |= (1 << high + 1) - (1 << low)
    except ValueError:
        raise SpecError(where, f"{text!r} is no list of numbers such as 0,2-3") from None
    if not mask:
        raise SpecError(where, f"{text!r} is an empty list")
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


def device_policy(devices: Devices, *, v2: bool) -> list[Property]:
    """DevicePolicy= and DeviceAllow= for the rules, as far as systemd can say them: it only knows what is allowed.

    What it cannot say, v2 leaves to our own eBPF program, which systemd never takes away; on v1, where systemd writes
    the same lists, nothing more is allowed than the rules do.
    """
    nothing: list[tuple[str, str]] = []
    everything: list[Property] = [("DeviceAllow", ("a(ss)", nothing)), ("DevicePolicy", ("s", "auto"))]
    try:
        exceptions = devices.v1_exceptions()
    except SpecError:  # holes within holes
        exceptions, unspeakable = {}, True
    else:
        unspeakable = any(major == ANY and minor != ANY for _, major, minor in exceptions)
        unspeakable = unspeakable or bool(devices.allow and exceptions)
    if (devices.allow and not unspeakable) or (unspeakable and v2):
        return everything
    allowed = [] if devices.allow else [(_path(*key), _letters(mask)) for key, mask in exceptions.items()]
    # An empty list first: it takes away what was there before.
    return [
        ("DeviceAllow", ("a(ss)", nothing)),
        ("DevicePolicy", ("s", "strict")),
        ("DeviceAllow", ("a(ss)", [entry for entry in allowed if entry[0]])),
    ]


def _path(type_: str, major: int, minor: int) -> str:
    """How DeviceAllow= names a device; "" where it cannot (`*:7`). Numbers are understood since systemd 240."""
    word = "block" if type_ == "b" else "char"
    if major == ANY:
        return f"{word}-*" if minor == ANY else ""
    return f"{word}-{major}" if minor == ANY else f"/dev/{word}/{major}:{minor}"


def _letters(mask: int) -> str:
    return "".join(letter for letter, bit in (("r", 2), ("w", 4), ("m", 1)) if mask & bit)


def _memory(memory: Memory, *, v2: bool) -> list[Property]:
    limit, reservation = memory.get("limit", 0), memory.get("reservation", 0)
    found: list[Property] = []
    if limit:
        found.append(("MemoryMax" if v2 else "MemoryLimit", ("t", _limit(limit))))
    if not v2:
        return found
    if reservation:
        found.append(("MemoryLow", ("t", _limit(reservation))))
    swap = swap_max(memory)
    if swap is not None:
        found.append(("MemorySwapMax", ("t", INFINITY if swap == "max" else int(swap))))
    return found


def _limit(value: int) -> int:
    return INFINITY if value < 0 else value


def _weight(cpu: CPU, *, v2: bool, version: Callable[[], int]) -> list[Property]:
    shares = cpu.get("shares", 0)
    if not v2:
        return [("CPUShares", ("t", shares))] if shares else []
    if cpu.get("idle") == 1 and version() >= _IDLE_SINCE:
        return [("CPUWeight", ("t", 0))]  # systemd's word for idle; a weight would wake it
    return [("CPUWeight", ("t", cpu_weight(shares)))] if shares else []


def _quota(quota: int, period: int) -> list[Property]:
    found: list[Property] = []
    if period:
        found.append(("CPUQuotaPeriodUSec", ("t", period)))
    if quota or period:
        per_second = _per_second(quota, period or _DEFAULT_PERIOD) if quota > 0 else INFINITY
        found.append(("CPUQuotaPerSecUSec", ("t", per_second)))
    return found


def _per_second(quota: int, period: int) -> int:
    """Microseconds of CPU a second, rounded up to whole percents."""
    return -(-(quota * 1_000_000 // period) // _STEP) * _STEP


def _unified(unified: dict[str, str], version: Callable[[], int], *, creating: bool) -> list[Property]:
    found: list[Property] = []
    idle = unified.get("cpu.idle", "").strip() == "1" and version() >= _IDLE_SINCE
    for key, text in unified.items():
        where = f'linux.resources.unified["{key}"]'
        text = text.strip()
        if key in _UNIFIED_LIMITS:
            value = INFINITY if text == "max" else _whole(text, where)
            found.append((_UNIFIED_LIMITS[key], ("t", max(value, 1) if key == "pids.max" else value)))
        elif key in _UNIFIED_SETS:
            found.append((_UNIFIED_SETS[key], ("ay", bits(text, where))))
        elif key == "cpu.max":
            quota, _, period = text.partition(" ")
            found += _quota(
                0 if quota == "max" else _whole(quota, where), _whole(period, where) if period else _DEFAULT_PERIOD
            )
        elif key == "cpu.weight" and not idle:
            found.append(("CPUWeight", ("t", _whole(text, where))))
        elif key == "cpu.idle" and idle:
            found.append(("CPUWeight", ("t", 0)))
        elif key == "memory.oom.group" and creating and text in ("0", "1"):
            # Only a unit that is being made takes it.
            found.append(("OOMPolicy", ("s", "kill" if text == "1" else "continue")))
    return found


def _whole(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise SpecError(where, f"{text!r} is no whole number")
    return int(text)

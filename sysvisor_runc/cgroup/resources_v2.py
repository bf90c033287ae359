"""`linux.resources` → settings of the cgroup v2 controllers (Documentation/admin-guide/cgroup-v2.rst).

Pure. The specification speaks v1; what v2 counts differently is converted as current runc does, so that a limit means
the same under both. `unified` comes last and wins.
"""

from __future__ import annotations

import math

from sysvisor_runc.cgroup.resources_v1 import cpuset, pids_limit, rdma
from sysvisor_runc.cgroup.settings import Setting, UsageCheck
from sysvisor_runc.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import CPU, BlockIO, LinuxResources, Memory

_DEFAULT_PERIOD = 100000  # µs; what the kernel starts with
_THROTTLES = (
    ("throttleReadBpsDevice", "rbps"),
    ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"),
    ("throttleWriteIOPSDevice", "wiops"),
)


def convert(resources: LinuxResources) -> list[Setting | UsageCheck]:
    """The settings in the order of writing.

    Raises:
        SpecError: a swap limit without a fitting memory limit, a malformed `unified` key.
    """
    steps: list[Setting | UsageCheck] = []
    if cpu := resources.get("cpu"):
        steps += cpuset(cpu) + _cpu(cpu)
    if memory := resources.get("memory"):
        steps += _memory(memory)
    if pids := resources.get("pids"):
        steps += pids_limit(pids.get("limit"))
    if block_io := resources.get("blockIO"):
        steps += _io(block_io)
    for item in resources.get("hugepageLimits", ()):
        file, limit = f"hugetlb.{item['pageSize']}", item["limit"]
        steps.append(Setting("hugetlb", f"{file}.max", limit))
        steps.append(Setting("hugetlb", f"{file}.rsvd.max", limit, optional=True))  # since Linux 5.7
    steps += rdma(resources)
    return steps + _unified(resources.get("unified", {}))


def cpu_weight(shares: int) -> int:
    """v1 shares (2 … 262144, usual 1024) as a v2 weight (1 … 10000, usual 100); 0 stays 0, "not set".

    A parabola through (2, 1), (1024, 100) and (262144, 10000) on logarithmic scales. The straight line that everybody
    used first made the usual share of 1024 a weight of 39 and starved containers beside ordinary services.
    """
    if shares == 0:
        return 0
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    power = math.log2(shares)
    return math.ceil(10 ** ((power * power + 125 * power) / 612 - 7 / 34))


def io_weight(weight: int) -> int:
    """blkio's weight (10 … 1000) as an io weight (1 … 10000); 0 stays 0, "not set"."""
    return 1 + (weight - 10) * 9999 // 990 if weight else 0


def swap_max(memory: Memory) -> str | None:
    """`memory.swap.max` for v1's memory+swap limit; None leaves it alone.

    Raises:
        SpecError: nothing to subtract the memory from, or less than it.
    """
    limit, swap = memory.get("limit", 0), memory.get("swap", 0)
    if swap == -1 or (swap == 0 and limit == -1):
        return "max"
    if swap == 0:
        return None
    where = "linux.resources.memory.swap"
    if limit == -1:
        return str(swap)
    if limit == 0:
        raise SpecError(where, "unable to set swap limit without memory limit")
    if limit < 0:
        raise SpecError("linux.resources.memory.limit", f"{limit} is no limit")
    if swap < limit:
        raise SpecError(where, "memory+swap limit should be >= memory limit")
    return str(swap - limit)


def _cpu(cpu: CPU) -> list[Setting | UsageCheck]:
    steps: list[Setting | UsageCheck] = []
    # An idle cgroup refuses a weight (EINVAL); when it is being woken in the same go, the second try succeeds.
    if weight := cpu_weight(cpu.get("shares", 0)):
        steps.append(Setting("cpu", "cpu.weight", weight, again=True))
    if (idle := cpu.get("idle")) is not None:
        steps.append(Setting("cpu", "cpu.idle", idle))
    # Burst and quota bound each other.
    if (burst := cpu.get("burst")) is not None:
        steps.append(Setting("cpu", "cpu.max.burst", burst, again=True))
    quota, period = cpu.get("quota", 0), cpu.get("period", 0)
    if quota or period:
        value = f"{quota if quota > 0 else 'max'} {period or _DEFAULT_PERIOD}"
        steps.append(Setting("cpu", "cpu.max", value, again=True))
    return steps


def _memory(memory: Memory) -> list[Setting | UsageCheck]:
    steps: list[Setting | UsageCheck] = []
    limit, reservation = memory.get("limit", 0), memory.get("reservation", 0)
    if memory.get("checkBeforeUpdate"):
        if (swap := memory.get("swap", 0)) > 0:
            steps.append(UsageCheck("memory", "memory.current", swap, "memory+swap limit"))
        if limit > 0:
            steps.append(UsageCheck("memory", "memory.current", limit, "memory limit"))
    if (swap_limit := swap_max(memory)) is not None:
        # Kernels without swap accounting lack the file, which is as good as no swap and as no limit on it.
        steps.append(Setting("memory", "memory.swap.max", swap_limit, optional=swap_limit in ("max", "0")))
    if limit:
        steps.append(Setting("memory", "memory.max", "max" if limit == -1 else limit))
    if reservation:
        steps.append(Setting("memory", "memory.low", "max" if reservation == -1 else reservation))
    return steps


def _io(block_io: BlockIO) -> list[Setting | UsageCheck]:
    steps: list[Setting | UsageCheck] = []
    if weight := block_io.get("weight", 0):
        plain = Setting("io", "io.weight", io_weight(weight))
        steps.append(Setting("io", "io.bfq.weight", weight, otherwise=plain))
    for device in block_io.get("weightDevice", ()):
        if weight := device.get("weight", 0):
            # Only BFQ weighs by device in v1's sense; as in runc, nothing happens without it.
            value = f"{device['major']}:{device['minor']} {weight}"
            steps.append(Setting("io", "io.bfq.weight", value, optional=True))
    for key, word in _THROTTLES:
        for throttle in block_io.get(key, ()):  # type: ignore[attr-defined]  # mypy sees object for a variable key
            # v1 says "no limit" by 0, which io.max refuses.
            value = f"{throttle['major']}:{throttle['minor']} {word}={throttle['rate'] or 'max'}"
            steps.append(Setting("io", "io.max", value))
    return steps


def _unified(unified: dict[str, str]) -> list[Setting | UsageCheck]:
    steps: list[Setting | UsageCheck] = []
    for key, value in unified.items():
        where = f'linux.resources.unified["{key}"]'
        if "/" in key:
            raise SpecError(where, f"unified resource {key!r} must be a file name (no slashes)")
        controller, dot, _ = key.partition(".")
        if not dot or not controller:
            raise SpecError(where, f"unified resource {key!r} must be in the form CONTROLLER.PARAMETER")
        # The kernel takes one line per write: io.max is set device by device.
        lines = [line for line in value.split("\n") if line] or [""]
        steps += [Setting(controller, key, line) for line in lines]
    return steps

"""`linux.resources` → settings of the cgroup v1 controllers (Documentation/admin-guide/cgroup-v1).

Pure. 0 means "not set" wherever runc takes it so, since clients send zeros for what they do not care about.
"""

from __future__ import annotations

from sysvisor_runc.cgroup.settings import Setting
from sysvisor_runc.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.settings import UsageCheck
    from sysvisor_runc.spec.types import CPU, BlockIO, LinuxResources, Memory, Network

_THROTTLES = (
    ("throttleReadBpsDevice", "read_bps"),
    ("throttleWriteBpsDevice", "write_bps"),
    ("throttleReadIOPSDevice", "read_iops"),
    ("throttleWriteIOPSDevice", "write_iops"),
)


def convert(resources: LinuxResources) -> list[Setting | UsageCheck]:
    """The settings in the order of writing; cpuset first, since nothing can join a cpuset without cpus and nodes.

    Raises:
        SpecError: `unified`, which v1 has not, or a value out of range.
    """
    if resources.get("unified"):
        raise SpecError("linux.resources.unified", "needs cgroup v2, and this machine has v1")
    steps: list[Setting | UsageCheck] = []
    if cpu := resources.get("cpu"):
        steps += cpuset(cpu) + _cpu(cpu)
    if memory := resources.get("memory"):
        steps += _memory(memory)
    if pids := resources.get("pids"):
        steps += pids_limit(pids.get("limit"))
    if block_io := resources.get("blockIO"):
        steps += _blkio(block_io)
    for item in resources.get("hugepageLimits", ()):
        file, limit = f"hugetlb.{item['pageSize']}", item["limit"]
        steps.append(Setting("hugetlb", f"{file}.limit_in_bytes", limit))
        steps.append(Setting("hugetlb", f"{file}.rsvd.limit_in_bytes", limit, optional=True))  # since Linux 5.7
    if network := resources.get("network"):
        steps += _network(network)
    return steps + rdma(resources)


def cpuset(cpu: CPU) -> list[Setting | UsageCheck]:
    """The same files on v1 and v2."""
    wanted = (("cpuset.cpus", cpu.get("cpus")), ("cpuset.mems", cpu.get("mems")))
    return [Setting("cpuset", file, value) for file, value in wanted if value]


def pids_limit(limit: int | None) -> list[Setting | UsageCheck]:
    """-1 is no limit; 0 becomes 1, as systemd's TasksMax cannot say 0 and the effect is the same (runc#4014)."""
    if limit is None:
        return []
    return [Setting("pids", "pids.max", "max" if limit < 0 else max(limit, 1))]


def rdma(resources: LinuxResources) -> list[Setting | UsageCheck]:
    """The same file on v1 and v2: `mlx5_0 hca_handle=2 hca_object=2000`."""
    steps: list[Setting | UsageCheck] = []
    for device, limits in resources.get("rdma", {}).items():
        words = [device]
        if "hcaHandles" in limits:
            words.append(f"hca_handle={limits['hcaHandles']}")
        if "hcaObjects" in limits:
            words.append(f"hca_object={limits['hcaObjects']}")
        steps.append(Setting("rdma", "rdma.max", " ".join(words)))
    return steps


def _cpu(cpu: CPU) -> list[Setting | UsageCheck]:
    steps: list[Setting | UsageCheck] = []
    if shares := cpu.get("shares"):
        steps.append(Setting("cpu", "cpu.shares", shares, exact=True))
    # A shorter period may break old_quota/period <= the parent's; the new quota then makes it right, and so for burst.
    if period := cpu.get("period"):
        steps.append(Setting("cpu", "cpu.cfs_period_us", period, again=True))
    if (burst := cpu.get("burst")) is not None:
        steps.append(Setting("cpu", "cpu.cfs_burst_us", burst, again=True, optional=True))  # since Linux 5.14
    if quota := cpu.get("quota"):
        steps.append(Setting("cpu", "cpu.cfs_quota_us", quota, again=True))
    if (idle := cpu.get("idle")) is not None:
        steps.append(Setting("cpu", "cpu.idle", idle))
    if rt_period := cpu.get("realtimePeriod"):
        steps.append(Setting("cpu", "cpu.rt_period_us", rt_period, again=True))
    if rt_runtime := cpu.get("realtimeRuntime"):
        steps.append(Setting("cpu", "cpu.rt_runtime_us", rt_runtime, again=True))
    return steps


def _memory(memory: Memory) -> list[Setting | UsageCheck]:
    """Limit and limit-with-swap bound each other; which goes first depends on the old values: `again` sorts it out."""
    steps: list[Setting | UsageCheck] = []
    limit, swap = memory.get("limit", 0), memory.get("swap", 0)
    if memory.get("useHierarchy"):
        steps.append(Setting("memory", "memory.use_hierarchy", 1, optional=True))  # always so since Linux 5.11
    if limit:
        steps.append(Setting("memory", "memory.limit_in_bytes", limit, again=True))
    if swap:
        steps.append(Setting("memory", "memory.memsw.limit_in_bytes", swap, again=True))
    elif limit == -1:
        # No limit on memory alone would be one on swap; kernels without swap accounting lack the file.
        steps.append(Setting("memory", "memory.memsw.limit_in_bytes", -1, optional=True))
    if reservation := memory.get("reservation"):
        steps.append(Setting("memory", "memory.soft_limit_in_bytes", reservation))
    if memory.get("disableOOMKiller"):
        steps.append(Setting("memory", "memory.oom_control", 1))
    swappiness = memory.get("swappiness")
    # -1 as an unsigned number is how some clients say "not set".
    if swappiness is not None and swappiness not in (-1, 2**64 - 1):
        if not 0 <= swappiness <= 100:
            raise SpecError("linux.resources.memory.swappiness", f"{swappiness} is not between 0 and 100")
        steps.append(Setting("memory", "memory.swappiness", swappiness))
    return steps


def _blkio(block_io: BlockIO) -> list[Setting | UsageCheck]:
    steps: list[Setting | UsageCheck] = []
    if weight := block_io.get("weight"):
        # BFQ's file where that scheduler is built in; CFQ's went with Linux 5.0.
        steps.append(_either("blkio.bfq.weight", "blkio.weight", weight))
    if leaf_weight := block_io.get("leafWeight"):
        steps.append(Setting("blkio", "blkio.leaf_weight", leaf_weight))
    for device in block_io.get("weightDevice", ()):
        number = f"{device['major']}:{device['minor']}"
        if weight := device.get("weight"):
            steps.append(_either("blkio.bfq.weight_device", "blkio.weight_device", f"{number} {weight}"))
        if leaf_weight := device.get("leafWeight"):
            steps.append(Setting("blkio", "blkio.leaf_weight_device", f"{number} {leaf_weight}"))
    for key, file in _THROTTLES:
        for throttle in block_io.get(key, ()):  # type: ignore[attr-defined]  # mypy sees object for a variable key
            value = f"{throttle['major']}:{throttle['minor']} {throttle['rate']}"
            steps.append(Setting("blkio", f"blkio.throttle.{file}_device", value))
    return steps


def _either(file: str, older: str, value: str | int) -> Setting:
    return Setting("blkio", file, value, otherwise=Setting("blkio", older, value))


def _network(network: Network) -> list[Setting | UsageCheck]:
    steps: list[Setting | UsageCheck] = []
    if class_id := network.get("classID"):
        steps.append(Setting("net_cls", "net_cls.classid", class_id))
    steps += [
        Setting("net_prio", "net_prio.ifpriomap", f"{item['name']} {item['priority']}")
        for item in network.get("priorities", ())
    ]
    return steps

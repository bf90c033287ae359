"""linux.resources as control file values, for v1 and v2."""

import pytest

from sysvisor_runc.cgroup import resources_v2
from sysvisor_runc.cgroup.resources import convert
from sysvisor_runc.cgroup.settings import Setting
from sysvisor_runc.errors import SpecError
from sysvisor_runc.spec.types import LinuxResources

V1: list[tuple[LinuxResources, list[str]]] = [
    ({}, []),
    ({"memory": {"limit": 1024}}, ["memory.limit_in_bytes = 1024"]),
    ({"memory": {"limit": 0, "swap": 0, "reservation": 0}}, []),
    (
        {"memory": {"limit": 1024, "swap": 2048, "reservation": 512, "swappiness": 60, "disableOOMKiller": True}},
        [
            "memory.limit_in_bytes = 1024",
            "memory.memsw.limit_in_bytes = 2048",
            "memory.soft_limit_in_bytes = 512",
            "memory.oom_control = 1",
            "memory.swappiness = 60",
        ],
    ),
    ({"memory": {"limit": -1}}, ["memory.limit_in_bytes = -1", "memory.memsw.limit_in_bytes = -1"]),
    ({"memory": {"swappiness": 2**64 - 1, "useHierarchy": True}}, ["memory.use_hierarchy = 1"]),
    (
        {"cpu": {"shares": 100, "quota": 5, "period": 6, "burst": 0, "idle": 0, "cpus": "0-1", "mems": "0"}},
        [
            "cpuset.cpus = 0-1",
            "cpuset.mems = 0",
            "cpu.shares = 100",
            "cpu.cfs_period_us = 6",
            "cpu.cfs_burst_us = 0",
            "cpu.cfs_quota_us = 5",
            "cpu.idle = 0",
        ],
    ),
    (
        {"cpu": {"realtimePeriod": 7, "realtimeRuntime": 3}},
        ["cpu.rt_period_us = 7", "cpu.rt_runtime_us = 3"],
    ),
    ({"pids": {"limit": 20}}, ["pids.max = 20"]),
    ({"pids": {"limit": 0}}, ["pids.max = 1"]),
    ({"pids": {"limit": -1}}, ["pids.max = max"]),
    ({"pids": {}}, []),
    (
        {
            "blockIO": {
                "weight": 10,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 500, "leafWeight": 300}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                "throttleWriteBpsDevice": [{"major": 8, "minor": 16, "rate": 0}],
                "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 1}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 2}],
            }
        },
        [
            "blkio.bfq.weight = 10",
            "blkio.bfq.weight_device = 8:0 500",
            "blkio.leaf_weight_device = 8:0 300",
            "blkio.throttle.read_bps_device = 8:0 600",
            "blkio.throttle.write_bps_device = 8:16 0",
            "blkio.throttle.read_iops_device = 8:0 1",
            "blkio.throttle.write_iops_device = 8:0 2",
        ],
    ),
    (
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 4096}]},
        ["hugetlb.2MB.limit_in_bytes = 4096", "hugetlb.2MB.rsvd.limit_in_bytes = 4096"],
    ),
    (
        {"network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]}},
        ["net_cls.classid = 1048577", "net_prio.ifpriomap = eth0 500"],
    ),
    ({"rdma": {"mlx": {"hcaHandles": 3, "hcaObjects": 10}}}, ["rdma.max = mlx hca_handle=3 hca_object=10"]),
]


@pytest.mark.parametrize(("resources", "expected"), V1)
def test_v1(resources: LinuxResources, expected: list[str]) -> None:
    """Every v1 control gets its file and value, in an order that the kernel takes."""
    assert [step.describe() for step in convert(resources, "hybrid", devices=False)] == expected


V2: list[tuple[LinuxResources, list[str]]] = [
    ({}, []),
    ({"memory": {"limit": 1024, "reservation": 512}}, ["memory.max = 1024", "memory.low = 512"]),
    ({"memory": {"limit": 1024, "swap": 3072}}, ["memory.swap.max = 2048", "memory.max = 1024"]),
    ({"memory": {"limit": 1024, "swap": 1024}}, ["memory.swap.max = 0", "memory.max = 1024"]),
    ({"memory": {"limit": 1024, "swap": -1}}, ["memory.swap.max = max", "memory.max = 1024"]),
    ({"memory": {"limit": -1}}, ["memory.swap.max = max", "memory.max = max"]),
    ({"memory": {"limit": -1, "swap": 512}}, ["memory.swap.max = 512", "memory.max = max"]),
    ({"memory": {"swappiness": 60, "disableOOMKiller": True}}, []),
    (
        {"memory": {"limit": 1024, "swap": 2048, "checkBeforeUpdate": True}},
        [
            "check that memory.current < 2048",
            "check that memory.current < 1024",
            "memory.swap.max = 1024",
            "memory.max = 1024",
        ],
    ),
    ({"cpu": {"quota": 5000}}, ["cpu.max = 5000 100000"]),
    ({"cpu": {"quota": -1, "period": 50000}}, ["cpu.max = max 50000"]),
    ({"cpu": {"period": 50000, "burst": 10}}, ["cpu.max.burst = 10", "cpu.max = max 50000"]),
    ({"cpu": {"shares": 1024, "idle": 0, "cpus": "1"}}, ["cpuset.cpus = 1", "cpu.weight = 100", "cpu.idle = 0"]),
    ({"pids": {"limit": 0}}, ["pids.max = 1"]),
    (
        {
            "blockIO": {
                "weight": 750,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 500}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}],
            }
        },
        ["io.bfq.weight = 750", "io.bfq.weight = 8:0 500", "io.max = 8:0 rbps=600", "io.max = 8:0 wiops=max"],
    ),
    ({"hugepageLimits": [{"pageSize": "1GB", "limit": 0}]}, ["hugetlb.1GB.max = 0", "hugetlb.1GB.rsvd.max = 0"]),
    (
        {"pids": {"limit": 5}, "unified": {"pids.max": "9", "io.max": "8:0 riops=1\n8:16 riops=2\n"}},
        ["pids.max = 5", "pids.max = 9", "io.max = 8:0 riops=1", "io.max = 8:16 riops=2"],
    ),
]


@pytest.mark.parametrize(("resources", "expected"), V2)
def test_v2(resources: LinuxResources, expected: list[str]) -> None:
    """Every v1 notion is told in v2's terms, and `unified` comes last."""
    assert [step.describe() for step in convert(resources, "v2", devices=False)] == expected


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(0, 0), (1, 1), (2, 1), (100, 17), (200, 29), (1024, 100), (3333, 256), (262144, 10000), (10**6, 10000)],
)
def test_cpu_weight(shares: int, weight: int) -> None:
    """The usual share is the usual weight, the ends are the ends, and more never becomes less."""
    assert resources_v2.cpu_weight(shares) == weight
    assert resources_v2.cpu_weight(shares) <= resources_v2.cpu_weight(shares + 1) or shares >= 262144


@pytest.mark.parametrize(("blkio", "io"), [(0, 0), (10, 1), (750, 7475), (1000, 10000)])
def test_io_weight(blkio: int, io: int) -> None:
    """blkio weights are stretched linearly."""
    assert resources_v2.io_weight(blkio) == io


def test_bfq_falls_back_to_io_weight() -> None:
    """Without BFQ the stretched weight goes to io.weight."""
    (step,) = convert({"blockIO": {"weight": 750}}, "v2", devices=False)
    assert isinstance(step, Setting)
    assert step.otherwise is not None
    assert step.otherwise.describe() == "io.weight = 7475"


BAD: list[tuple[str, LinuxResources, str]] = [
    ("v2", {"memory": {"swap": 2048}}, "unable to set swap limit without memory limit"),
    ("v2", {"memory": {"limit": 2048, "swap": 1024}}, "should be >= memory limit"),
    ("v2", {"memory": {"limit": -2, "swap": 1024}}, "-2 is no limit"),
    ("v2", {"unified": {"../x": "1"}}, "no slashes"),
    ("v2", {"unified": {"pids": "1"}}, r"CONTROLLER\.PARAMETER"),
    ("hybrid", {"unified": {"memory.min": "1"}}, r"invalid configuration: linux\.resources\.unified: needs cgroup v2"),
    ("v1", {"memory": {"swappiness": 101}}, "not between 0 and 100"),
]


@pytest.mark.parametrize(("kind", "resources", "message"), BAD)
def test_contradictions(kind: str, resources: LinuxResources, message: str) -> None:
    """What cannot be right is refused before anything is written."""
    with pytest.raises(SpecError, match=message):
        convert(resources, kind)


def test_devices_come_first_unless_unwanted() -> None:
    """Even without resources the default device rules are set, before anything else."""
    assert [step.controller for step in convert({"pids": {"limit": 1}}, "v1")] == ["devices", "pids"]

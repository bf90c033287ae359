"""The shape of usage statistics: control files of each version in, and the JSON that runc prints of them out."""

import pathlib

import pytest

from sysvisor_runc.cgroup import counters
from sysvisor_runc.cgroup.manager import Manager
from sysvisor_runc.cgroup.stats import stats
from sysvisor_runc.jsonlight import dumps

CPUSET = (
    '"cpu_exclusive":0,%s"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,'
    '"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":%d,"sched_relax_domain_level":%d'
)
V1 = {
    "cpu/cpu.stat": "nr_periods 12\nnr_throttled 3\nthrottled_time 4500\nnr_bursts 0\nburst_time 0\n",
    "cpuacct/cpuacct.usage": "5000000\n",
    "cpuacct/cpuacct.usage_percpu": "3000000 2000000 \n",
    "cpuacct/cpuacct.usage_all": "cpu user system\n0 1000000 2000000\n1 500000 1500000\n",
    "cpuacct/cpuacct.stat": "user 7\nsystem 9\n",
    "cpuset/cpuset.cpus": "0-1,3\n",
    "cpuset/cpuset.mems": "0\n",
    "cpuset/cpuset.sched_load_balance": "1\n",
    "cpuset/cpuset.sched_relax_domain_level": "-1\n",
    "memory/memory.stat": "rss 20\ncache 10\ntotal_cache 11\ntotal_rss 21\n",
    "memory/memory.usage_in_bytes": "100\n",
    "memory/memory.max_usage_in_bytes": "200\n",
    "memory/memory.failcnt": "3\n",
    "memory/memory.limit_in_bytes": "9223372036854771712\n",
    # Without the limit that newer kernels have no more.
    "memory/memory.kmem.usage_in_bytes": "50\n",
    "memory/memory.kmem.max_usage_in_bytes": "60\n",
    "memory/memory.kmem.failcnt": "0\n",
    "pids/pids.current": "2\n",
    "pids/pids.max": "max\n",
    "blkio/blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Write 0\n8:0 Total 4096\nTotal 4096\n",
    "blkio/blkio.throttle.io_serviced_recursive": "8:0 Read 1\n8:0 Write 0\n8:0 Total 1\nTotal 1\n",
    "blkio/blkio.bfq.io_serviced_recursive": "",
    "hugetlb/hugetlb.2MB.rsvd.usage_in_bytes": "0\n",
    "hugetlb/hugetlb.2MB.rsvd.max_usage_in_bytes": "2097152\n",
    "hugetlb/hugetlb.2MB.rsvd.failcnt": "0\n",
    "hugetlb/hugetlb.1GB.usage_in_bytes": "0\n",
    "hugetlb/hugetlb.1GB.max_usage_in_bytes": "0\n",
    "hugetlb/hugetlb.1GB.failcnt": "4\n",
    "rdma/rdma.max": "mlx4_0 hca_handle=2 hca_object=max\n",
    "rdma/rdma.current": "mlx4_0 hca_handle=1 hca_object=20\n",
}
EXPECTED_V1 = (
    '{"cpu":{"usage":{"total":5000000,"percpu":[3000000,2000000],"percpu_kernel":[2000000,1500000],'
    '"percpu_user":[1000000,500000],"kernel":90000000,"user":70000000},'
    '"throttling":{"periods":12,"throttledPeriods":3,"throttledTime":4500}},'
    '"cpuset":{"cpus":[0,1,3],' + CPUSET % ('"mems":[0],', 1, -1) + "},"
    '"memory":{"cache":10,"usage":{"limit":9223372036854771712,"usage":100,"max":200,"failcnt":3},'
    '"kernel":{"limit":0,"usage":50,"max":60,"failcnt":0},'
    '"raw":{"cache":10,"rss":20,"total_cache":11,"total_rss":21}},'
    '"pids":{"current":2},'
    '"blkio":{"ioServiceBytesRecursive":[{"major":8,"op":"Read","value":4096},{"major":8,"op":"Write"},'
    '{"major":8,"op":"Total","value":4096}],'
    '"ioServicedRecursive":[{"major":8,"op":"Read","value":1},{"major":8,"op":"Write"},'
    '{"major":8,"op":"Total","value":1}]},'
    '"hugetlb":{"1GB":{"failcnt":4},"2MB":{"max":2097152,"failcnt":0}},'
    '"intel_rdt":{},"network_interfaces":null,'
    '"rdma":{"rdma_limit":[{"device":"mlx4_0","hca_handles":2,"hca_objects":4294967295}],'
    '"rdma_current":[{"device":"mlx4_0","hca_handles":1,"hca_objects":20}]}}'
)
V2 = {
    "cpu.stat": "usage_usec 300\nuser_usec 200\nsystem_usec 100\nnr_periods 5\nnr_throttled 1\nthrottled_usec 7\n",
    "cpu.pressure": "some avg10=1.50 avg60=2.00 avg300=0.00 total=99\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "memory.stat": "file 30\nanon 40\n",
    "memory.current": "1000\n",
    "memory.max": "5000\n",
    "memory.peak": "2000\n",
    "memory.swap.current": "10\n",
    "memory.swap.max": "max\n",
    "memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "pids.current": "4\n",
    "pids.max": "64\n",
    "io.stat": "253:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n",
    "hugetlb.2MB.current": "2097152\n",
    "hugetlb.2MB.events": "max 6\n",
    "misc.current": "sev 3\n",
    "misc.events": "sev.max 2\n",
}
EXPECTED_V2 = (
    '{"cpu":{"usage":{"total":300000,"kernel":100000,"user":200000},'
    '"throttling":{"periods":5,"throttledPeriods":1,"throttledTime":7000},'
    '"psi":{"some":{"avg10":1.5,"avg60":2,"avg300":0,"total":99}}},'
    '"cpuset":{' + CPUSET % ("", 0, 0) + "},"
    '"memory":{"cache":30,"usage":{"limit":5000,"usage":1000,"max":2000,"failcnt":0},'
    '"swap":{"limit":18446744073709551615,"usage":1010,"failcnt":0},"raw":{"anon":40,"file":30},"psi":{}},'
    '"pids":{"current":4,"limit":64},'
    '"blkio":{"ioServiceBytesRecursive":[{"major":253,"op":"Read","value":4096},{"major":253,"op":"Write"}],'
    '"ioServicedRecursive":[{"major":253,"op":"Read","value":1},{"major":253,"op":"Write"}]},'
    '"hugetlb":{"2MB":{"usage":2097152,"failcnt":6}},'
    '"intel_rdt":{},"network_interfaces":null,'
    '"misc":{"sev":{"usage":3,"events":2}}}'
)


@pytest.fixture(autouse=True)
def _sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sizes of huge pages, whatever this machine has."""
    for version in ("v1", "v2"):
        monkeypatch.setattr(f"sysvisor_runc.cgroup.stats_{version}.page_sizes", lambda: ["2MB", "1GB"])


def tree(root: pathlib.Path, files: dict[str, str]) -> pathlib.Path:
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    return root


def manager_v1(root: pathlib.Path, *, delegated: bool = False) -> Manager:
    paths = {entry.name: str(entry) for entry in root.iterdir()}
    return Manager({**paths, "unified": str(root / "nowhere")}, delegated=delegated)


def test_v1_as_runc_prints_it(tmp_path: pathlib.Path) -> None:
    """Names, nesting, order, and what is left out; RDMA follows, which runc does not print."""
    assert dumps(stats(manager_v1(tree(tmp_path, V1)))) == EXPECTED_V1


def test_v1_counts_the_cache_of_the_cgroups_below(tmp_path: pathlib.Path) -> None:
    """A system container's processes are in a cgroup below the one that is looked at."""
    memory = stats(manager_v1(tree(tmp_path, V1), delegated=True))["memory"]
    assert isinstance(memory, dict) and memory["cache"] == 11


def test_v2_as_runc_prints_it(tmp_path: pathlib.Path) -> None:
    """In the names of v1, with pressure; the misc controller follows, which runc does not print."""
    assert dumps(stats(Manager({"unified": str(tree(tmp_path, V2))}))) == EXPECTED_V2


@pytest.mark.parametrize("paths", [{}, {"unified": "/nowhere"}, {"memory": "/nowhere", "cpu": "/nowhere"}])
def test_nothing_to_tell_of(paths: dict[str, str]) -> None:
    """Without cgroups, or when they are gone, every part is there and empty."""
    assert dumps(stats(Manager(paths))) == (
        '{"cpu":{},"cpuset":{' + CPUSET % ("", 0, 0) + '},"memory":{},"pids":{},"blkio":{},"hugetlb":{},'
        '"intel_rdt":{},"network_interfaces":null}'
    )


def test_a_scheduler_that_counts_wins_over_the_throttle(tmp_path: pathlib.Path) -> None:
    """BFQ's numbers are more and better."""
    files = {
        "blkio/blkio.bfq.io_serviced_recursive": "8:16 Read 5\nTotal 5\n",
        "blkio/blkio.bfq.io_queued_recursive": "8:16 Read 2\n",
        "blkio/blkio.bfq.time_recursive": "8:16 77\n",
        "blkio/blkio.throttle.io_serviced_recursive": "8:0 Read 1\n",
    }
    assert dumps(stats(manager_v1(tree(tmp_path, files)))["blkio"]) == (
        '{"ioServicedRecursive":[{"major":8,"minor":16,"op":"Read","value":5}],'
        '"ioQueueRecursive":[{"major":8,"minor":16,"op":"Read","value":2}],'
        '"ioTimeRecursive":[{"major":8,"minor":16,"value":77}]}'
    )


def test_pids_without_their_controller_are_counted(tmp_path: pathlib.Path) -> None:
    """From the list of processes."""
    assert stats(Manager({"unified": str(tree(tmp_path, {"cgroup.procs": "12\n13\n"}))}))["pids"] == {"current": 2}


def test_the_names_of_page_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel names the files of the hugetlb controller."""
    names = ["hugepages-1048576kB", "hugepages-2048kB", "hugepages-64kB", "other"]
    monkeypatch.setattr("os.listdir", lambda _: names)
    assert counters.page_sizes() == ["64KB", "2MB", "1GB"]

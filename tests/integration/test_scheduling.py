"""scheduler, ioPriority, execCPUAffinity and memoryPolicy."""

import os
import pathlib

import pytest

from sysvisor_runc.kernel.syscall import syscall
from tests.support.bundle import Bundle
from tests.support.inside import start
from tests.support.runtime import Runtime

_SCHED_RESET_ON_FORK = 0x40000000


def fails(runtime: Runtime, bundle: Bundle) -> str:
    bundle.run("/bin/true")
    return runtime.fails("run", "--bundle", bundle.path, runtime.id()).stderr


def test_policies_for_everybody(plain_runtime: Runtime, bundle: Bundle) -> None:
    """BATCH and OTHER with a nice value, IDLE; a flag shows with the policy."""
    for scheduler, policy, nice in (
        ({"policy": "SCHED_BATCH", "nice": 7}, os.SCHED_BATCH, 7),
        ({"policy": "SCHED_OTHER", "nice": -5}, os.SCHED_OTHER, -5),
        ({"policy": "SCHED_IDLE"}, os.SCHED_IDLE, None),
        ({"policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}, os.SCHED_BATCH | _SCHED_RESET_ON_FORK, 0),
    ):
        bundle.process["scheduler"] = scheduler
        name, pid = start(plain_runtime, bundle)
        assert os.sched_getscheduler(pid) == policy
        if nice is not None:
            assert os.getpriority(os.PRIO_PROCESS, pid) == nice
        joined = plain_runtime("exec", name, "/bin/cat", "/proc/self/sched").stdout
        number = next(line.split(":")[1] for line in joined.splitlines() if line.startswith("policy"))
        assert int(number) == policy & ~_SCHED_RESET_ON_FORK


def test_real_time(plain_runtime: Runtime, bundle: Bundle) -> None:
    """FIFO with a priority; where the cgroup has no real-time budget (RT_GROUP_SCHED) the error says so."""
    bundle.process["scheduler"] = {"policy": "SCHED_FIFO", "priority": 3}
    bundle.run("/bin/sleep", "1000")
    name = plain_runtime.id()
    result = plain_runtime("run", "--detach", "--bundle", bundle.path, name, check=False)
    if result.returncode:
        assert "error setting scheduler" in result.stderr and "not permitted" in result.stderr
        return
    pid = plain_runtime.state(name)["pid"]
    assert (os.sched_getscheduler(pid), os.sched_getparam(pid).sched_priority) == (os.SCHED_FIFO, 3)


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        ({"policy": "SCHED_OTHER", "nice": 20}, "scheduler.nice"),
        ({"policy": "SCHED_OTHER", "priority": 1}, "SCHED_FIFO or SCHED_RR"),
        ({"policy": "SCHED_BATCH", "runtime": 1}, "SCHED_DEADLINE"),
        ({"policy": "SCHED_DEADLINE", "runtime": 9, "deadline": 5, "period": 1}, "error setting scheduler"),
        ({"policy": "SCHED_UNHEARD_OF"}, "process.scheduler.policy"),
    ],
)
def test_schedulers_that_cannot_be(
    plain_runtime: Runtime, bundle: Bundle, scheduler: dict[str, object], words: str
) -> None:
    """Contradictions and what the kernel refuses."""
    bundle.process["scheduler"] = scheduler
    assert words in fails(plain_runtime, bundle)


@pytest.mark.parametrize(
    ("kind", "level", "value"),
    [("IOPRIO_CLASS_BE", 6, 2 << 13 | 6), ("IOPRIO_CLASS_IDLE", 0, 3 << 13), ("IOPRIO_CLASS_RT", 1, 1 << 13 | 1)],
)
def test_io_priority(plain_runtime: Runtime, bundle: Bundle, kind: str, level: int, value: int) -> None:
    """Class and level, as ioprio_get(2) has them."""
    bundle.process["ioPriority"] = {"class": kind, "priority": level}
    _, pid = start(plain_runtime, bundle)
    assert ioprio(pid) == value


def ioprio(pid: int) -> int:
    """ioprio_get(2) of a process; the number is that of ioprio_set, plus one, where we run tests."""
    from sysvisor_runc.kernel import syscall as table

    table.NUMBERS.setdefault("ioprio_get", table.NUMBERS["ioprio_set"] + 1)
    return syscall("ioprio_get", 1, pid)


def test_io_priority_out_of_range(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Levels go from 0 to 7."""
    bundle.process["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 8}
    assert "process.ioPriority.priority" in fails(plain_runtime, bundle)


def test_affinity_of_processes_that_join(plain_runtime: Runtime, bundle: Bundle) -> None:
    """execCPUAffinity concerns exec only: init may run everywhere."""
    cpus = sorted(os.sched_getaffinity(0))
    bundle.process["execCPUAffinity"] = {"initial": str(cpus[0]), "final": str(cpus[-1])}
    name, pid = start(plain_runtime, bundle)
    assert sorted(os.sched_getaffinity(pid)) == cpus
    joined = plain_runtime("exec", name, "/bin/grep", "Cpus_allowed_list", "/proc/self/status").stdout
    assert joined.split()[1] == str(cpus[-1])
    bundle.process["execCPUAffinity"] = {"final": "1-0"}
    assert "execCPUAffinity" in fails(plain_runtime, bundle)


def numa_policy(pid: int) -> str:
    """The policy of the first mapping."""
    return pathlib.Path(f"/proc/{pid}/numa_maps").read_text().split("\n", 1)[0].split()[1]


def test_memory_policy(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Set before the program starts, so that all its memory follows it."""
    if not pathlib.Path("/proc/self/numa_maps").exists():
        pytest.skip("the kernel knows no NUMA; to force it: CONFIG_NUMA")
    for policy, shown in (
        ({"mode": "MPOL_BIND", "nodes": "0"}, "bind:0"),
        ({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}, "interleave=static:0"),
        ({"mode": "MPOL_PREFERRED", "nodes": "0"}, "prefer:0"),
        ({"mode": "MPOL_LOCAL"}, "local"),
        ({"mode": "MPOL_DEFAULT"}, "default"),
    ):
        bundle.linux["memoryPolicy"] = policy
        _, pid = start(plain_runtime, bundle)
        assert numa_policy(pid) == shown


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"mode": "MPOL_BIND"}, "at least one node"),
        ({"mode": "MPOL_DEFAULT", "nodes": "0"}, "0 nodes"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NONE"]}, "MPOL_F_NONE"),
        ({"mode": "MPOL_BIND", "nodes": "60000"}, "set_mempolicy"),
    ],
)
def test_memory_policies_that_cannot_be(
    plain_runtime: Runtime, bundle: Bundle, policy: dict[str, object], words: str
) -> None:
    """Contradictions, unknown words, and nodes that the machine has not."""
    bundle.linux["memoryPolicy"] = policy
    assert words in fails(plain_runtime, bundle)

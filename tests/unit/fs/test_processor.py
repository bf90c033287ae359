"""A container's processors: which, how many, how busy; load and uptime."""

import math
import os
import pathlib
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysvisor_fs.node import Container
from sysvisor_fs.nodes import processor
from sysvisor_fs.nodes.processor import Cpuinfo, Loadavg, Stat, Uptime
from sysvisor_fs.views import cpu, load
from sysvisor_fs.views.hierarchy import bounding
from tests.support import fs_cgroup as cg

CPUINFO = b"".join(
    b"processor\t: %d\nmodel name\t: A CPU\nsiblings\t: 8\ncore id\t\t: %d\ncpu cores\t: 4\n\n" % (n, n)
    for n in range(8)
)


def v2(root: pathlib.Path, own: str = "max 100000", above: str = "max 100000", cpus: str = "0-7") -> Container:
    stat = "usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000"
    path = cg.make(root, "a/b", cpu__max=own, cpuset__cpus__effective=cpus, cpu__stat=stat)
    cg.write(path.parent, cpu__max=above)
    return cg.container(unified=path)


@pytest.mark.parametrize(("own", "above", "cpus", "expected"), [
    ("max 100000", "max 100000", "0-7", (0, 1, 2, 3, 4, 5, 6, 7)),
    ("150000 100000", "max 100000", "0-7", (0, 1)),
    ("150000 100000", "50000 100000", "0-7", (0,)),
    ("1000 100000", "max 100000", "4-7", (4,)),
    ("400000 100000", "max 100000", "1,5", (1, 5)),
    ("300000 100000", "250000 50000", "2-3,6-7", (2, 3, 6)),
])  # fmt: skip
def test_cpus_from_cpuset_and_quota(
    tmp_path: pathlib.Path, own: str, above: str, cpus: str, expected: tuple[int, ...]
) -> None:
    """The cpuset's first ones, as many as the tightest quota pays for, rounded up."""
    assert cpu.visible(v2(tmp_path, own, above, cpus)) == expected


def test_cpus_on_v1(tmp_path: pathlib.Path) -> None:
    """The same from v1's files, a -1 being no quota."""
    quota = cg.make(tmp_path / "", "cpu/a", cpu__cfs_quota_us=250000, cpu__cfs_period_us=100000)
    cg.write(quota.parent, cpu__cfs_quota_us=-1, cpu__cfs_period_us=100000)
    cpuset = cg.make(tmp_path, "cpuset/a", cpuset__effective_cpus="0-3", cpuset__cpus="0-3")
    assert cpu.visible(cg.container(cpu=quota, cpuset=cpuset)) == (0, 1, 2)


def test_hybrid_takes_each_from_where_it_is(tmp_path: pathlib.Path) -> None:
    """A v1 controller wins over the unified hierarchy, which has the rest."""
    unified = cg.make(tmp_path, "unified/a", cpu__max="100000 100000", cpuset__cpus__effective="0-3")
    quota = cg.make(tmp_path, "cpu/a", cpu__cfs_quota_us=200000, cpu__cfs_period_us=100000)
    assert cpu.visible(cg.container(unified=unified, cpu=quota)) == (0, 1)


@given(st.sets(st.integers(0, 300)))
def test_cpu_lists_round_trip(cpus: set[int]) -> None:
    """What is written as a list is read as the same."""
    numbers = tuple(sorted(cpus))
    assert cpu.parse_list(cpu.format_list(numbers)) == numbers


@pytest.mark.parametrize(("file", "counts"), [("release_agent", False), ("cgroup.controllers", False), ("", True)])
def test_root_of_a_hierarchy_limits_nothing(tmp_path: pathlib.Path, file: str, counts: bool) -> None:
    """The kernel's own root, of v1 or v2, is not asked; the top of a part that is mounted here is."""
    below = cg.make(tmp_path / "", "top/a")
    if file:
        (below.parent / file).touch()
    assert bounding(str(below)) == (str(below), *([str(below.parent)] if counts else []))


def test_changed_limits_show_at_the_next_reading(tmp_path: pathlib.Path) -> None:
    """What is kept of earlier readings is never an earlier answer."""
    container = v2(tmp_path, cpus="0-3")
    seen = []
    for cpus, quota in (("0-3", "max 100000"), ("0", "max 100000"), ("0-3", "200000 100000"), ("0-3", "max 100000")):
        cg.write(tmp_path / "a/b", cpuset__cpus__effective=cpus, cpu__max=quota)
        seen.append((len(cpu.visible(container)), Stat().read(container, cg.NOBODY).count(b"\ncpu")))
    assert seen == [(4, 4), (1, 1), (2, 2), (4, 4)]


def test_cpuinfo_is_renumbered() -> None:
    """The blocks of the container's CPUs, numbered from 0, and no package bigger than the machine."""
    text = processor.cpuinfo(CPUINFO, (2, 5, 6)).decode()
    assert [line.split(": ")[1] for line in text.splitlines() if line.startswith("processor")] == ["0", "1", "2"]
    assert [line.split(": ")[1] for line in text.splitlines() if line.startswith("core id")] == ["2", "5", "6"]
    assert "siblings\t: 3" in text
    assert "cpu cores\t: 3" in text


def test_cpuinfo_of_all_is_the_hosts() -> None:
    """With every CPU there is nothing to change."""
    assert processor.cpuinfo(CPUINFO, tuple(range(8))) == CPUINFO


def test_blocks_of_no_cpu_stay() -> None:
    """Other architectures end with a block of the machine."""
    assert processor.cpuinfo(CPUINFO + b"Hardware\t: Board\n", (0,)).endswith(b"\nHardware\t: Board\n\n")


def test_host_cpuinfo_through_the_node(tmp_path: pathlib.Path) -> None:
    """One CPU of the real file, in the real layout."""
    text = Cpuinfo().read(v2(tmp_path, "50000 100000", cpus="0"), cg.NOBODY)
    real = pathlib.Path("/proc/cpuinfo").read_bytes()
    assert text.count(b"\nprocessor") + text.startswith(b"processor") == 1
    assert [line.split(b":")[0] for line in text.splitlines()] == [
        line.split(b":")[0] for line in real[: real.index(b"\n\n") + 2].splitlines()
    ]


def numbers(text: bytes) -> dict[str, list[int]]:
    return {line.split()[0]: [int(word) for word in line.split()[1:]] for line in text.decode().splitlines()}


def test_stat_adds_up(tmp_path: pathlib.Path) -> None:
    """The first line is the sum of the others; user and system are the cgroup's; idle is the rest of the time."""
    container = v2(tmp_path, "200000 100000")
    found = numbers(Stat().read(container, cg.NOBODY))
    assert found["cpu"] == [a + b for a, b in zip(found["cpu0"], found["cpu1"], strict=True)]
    assert found["cpu"][0] == 300
    assert found["cpu"][2] == 200
    assert 19400 <= found["cpu"][3] <= 30000
    assert len(found["cpu"]) == 10
    assert "cpu2" not in found


def test_uptime_agrees_with_stat(tmp_path: pathlib.Path) -> None:
    """Seconds since the start; idle seconds of all CPUs together, as /proc/stat counts them."""
    container = v2(tmp_path, "200000 100000")
    up, idle = (float(word) for word in Uptime().read(container, cg.NOBODY).split())
    stat = numbers(Stat().read(container, cg.NOBODY))
    assert 100 <= up < 160
    assert idle == pytest.approx(stat["cpu"][3] / 100, abs=5)
    assert idle == pytest.approx(2 * up - 5, abs=5)


def test_clock_set_anew_does_not_move_uptime(tmp_path: pathlib.Path) -> None:
    """Only the boot clock counts; without a start there is no age."""
    container = v2(tmp_path)
    container.ctime_ns = 1
    assert float(Uptime().read(container, cg.NOBODY).split()[0]) < 160
    container.start_boottime_ns = 0
    assert Uptime().read(container, cg.NOBODY).startswith(b"0.00 ")


STEPS = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_no_counter_goes_back(steps: list[tuple[int, int, int]]) -> None:
    """CPUs may come and go, and a daemon may be replaced: every CPU's user and system time only grows."""
    epoch = None
    told: dict[int, cpu.Busy] = {}
    age = user = system = 0
    for count, ran, served in steps:
        age += 10**10
        user, system = user + ran, system + served
        if epoch is None:
            epoch = cpu._Epoch(count, 0, 0, 0, (cpu.Busy(0, 0, 0),) * count)
        else:
            epoch = cpu.continued(epoch, count, age, user, system)
        epoch = cpu._load(cpu._dump(epoch))
        assert epoch is not None
        for number, now in enumerate(cpu._told(epoch, age, user, system)[:count]):
            before = told.get(number, cpu.Busy(0, 0, 0))
            assert now.user >= before.user
            assert now.system >= before.system
            told[number] = now


def test_count_that_changes_is_remembered(tmp_path: pathlib.Path) -> None:
    """Halving the CPUs does not make the remaining one look twice as busy."""
    container = v2(tmp_path, "200000 100000")
    before = cpu.busy(container)
    cg.write(pathlib.Path(container.cgroups["unified"]), cpu__max="100000 100000")
    after = cpu.busy(container)
    assert len(after) == 1
    assert after[0].user == before[0].user
    assert after[0].idle >= before[0].idle


def test_load_formula_is_the_kernels() -> None:
    """One task that always runs: 1-minute load is 1 - e^(-t/60), as closely as eleven bits allow."""
    value = load.Load((0, 0, 0))
    for period in range(1, 361):
        value = load.Load(load.after(value, 1, 1))
        for average, minutes in zip(value.averages, (1, 5, 15), strict=True):
            assert average / load.FIXED_1 == pytest.approx(1 - math.exp(-period * 5 / 60 / minutes), abs=0.03)
    assert load.after(value, 100000, 0) == (0, 0, 0)


def test_load_counts_running_tasks(tmp_path: pathlib.Path) -> None:
    """A process that computes is seen as running, in a cgroup below too; averages rise with each sample."""
    busy = subprocess.Popen([sys.executable, "-SIc", "while True: pass"])
    try:
        path = cg.make(tmp_path, "a", cpu__stat="user_usec 1000000\nsystem_usec 0")
        below = cg.make(tmp_path, "a/b")
        (below / "cgroup.procs").write_text(f"{busy.pid}\n")
        (path / "cgroup.procs").write_text(f"{os.getpid()}\n")
        container = cg.container("busy", unified=path)
        load.tick([container])
        first = load.load_of(container)
        assert first.running >= 1
        assert first.tasks >= 2
        text = Loadavg().read(container, cg.NOBODY).split()
        assert len(text) == 5
        assert float(text[0]) > 0
        assert float(text[0]) >= float(text[1]) >= float(text[2])
    finally:
        busy.kill()
        busy.wait()
        load.tick([])


def test_load_is_never_sampled_by_a_reader(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the first sample there are zeros: a reader would wait for as long as the container makes it."""
    monkeypatch.setattr(load, "_sample", lambda *_: pytest.fail("sampled"))
    container = cg.container("new", unified=cg.make(tmp_path, "a", cpu__stat="user_usec 0\nsystem_usec 0"))
    assert Loadavg().read(container, cg.NOBODY) == b"0.00 0.00 0.00 1/1 1\n"
    assert b"processes 0\n" in Stat().read(container, cg.NOBODY)


def test_load_looks_at_so_many_only(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cgroups and threads are counted as much as processes, so that none of them makes a sample endless."""
    monkeypatch.setattr(load, "_LONGEST", 8)
    path = cg.make(tmp_path, "a")
    for number in range(20):
        (cg.make(tmp_path, f"a/{number}") / "cgroup.procs").write_text(f"{os.getpid()}\n")
    container = cg.container("wide", unified=path)
    assert len(list(load._processes(container))) == 7
    monkeypatch.setattr(load, "_states", lambda _: iter([b"S"] * 5))
    assert load._count(container).tasks == 8


def test_load_survives_the_daemon(tmp_path: pathlib.Path) -> None:
    """What was saved is taken up again, less what time has passed."""
    container = cg.container("saved", unified=cg.make(tmp_path, "a", cpu__stat="user_usec 0\nsystem_usec 0"))
    now = container.start_boottime_ns + 100 * 10**9
    container.values[load.KEY] = f"{4 << 11} {3 << 11} {2 << 11} {now}".encode()
    assert load.load_of(container).averages == (4 << 11, 3 << 11, 2 << 11)
    load.tick([container])
    found = load.load_of(container).averages
    load.tick([])
    assert 0 < found[0] <= 4 << 11
    assert (3 << 11) * 0.5 < found[1] <= 3 << 11

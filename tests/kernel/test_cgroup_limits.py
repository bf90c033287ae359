"""Limits, counters and OOM kills of a container's cgroups, on this machine's own layout."""

import asyncio
import os
import pathlib
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from sysvisor_runc.aio import loop as loops
from sysvisor_runc.aio.oom import OomWatch
from sysvisor_runc.cgroup.layout import UNIFIED, Layout
from sysvisor_runc.cgroup.manager import Manager
from sysvisor_runc.cgroup.resources import convert
from sysvisor_runc.cgroup.settings import Setting
from sysvisor_runc.cgroup.stats import oom_kills, stats
from sysvisor_runc.errors import CgroupError
from sysvisor_runc.spec.types import DeviceCgroup
from tests.support.cgroups import apply, exit_code, needs, start, value

pytestmark = pytest.mark.root


def test_memory_limits_in_any_order(manager: Manager) -> None:
    """Memory and memory+swap can be raised and lowered together from anywhere."""
    needs(manager, "memory")
    mb = 1 << 20
    for limit, swap in ((32, 48), (60, 80), (30, 50), (100, 100), (40, 90)):
        apply(manager, {"memory": {"limit": limit * mb, "swap": swap * mb}})
        assert value(manager, "memory.limit_in_bytes", "memory.max") == str(limit * mb)
        path = pathlib.Path(manager.paths[UNIFIED if manager.v2 else "memory"])
        file = path / ("memory.swap.max" if manager.v2 else "memory.memsw.limit_in_bytes")
        if file.exists():
            assert int(file.read_text()) == (swap - limit if manager.v2 else swap) * mb
    apply(manager, {"memory": {"limit": -1}})
    assert int(value(manager, "memory.limit_in_bytes", "memory.max").replace("max", str(1 << 62))) > 1 << 40


def test_memory_limit_below_usage(manager: Manager) -> None:
    """v1 refuses a limit below what is used, with the numbers; v2 does when asked to check."""
    needs(manager, "memory")
    ready, tell = os.pipe()

    def hold() -> None:
        data = bytearray(os.urandom(1 << 20) * 8)
        os.write(tell, b"x")
        time.sleep(100)
        del data

    pid = start(manager, hold)
    os.read(ready, 1)
    if not manager.v2:
        # Locked pages would be reclaimed otherwise where there is swap; without swap anonymous memory stays.
        with pytest.raises(CgroupError, match=r"unable to set memory limit to 4096 \(current usage: \d+, peak"):
            apply(manager, {"memory": {"limit": 4096}})
    else:
        with pytest.raises(CgroupError, match="rejecting memory limit 1024 <= usage"):
            apply(manager, {"memory": {"limit": 1024, "checkBeforeUpdate": True}})
    manager.kill_all(signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(ready)
    os.close(tell)


def test_oom_is_counted(manager: Manager) -> None:
    """A process that outgrows its memory is killed, and the count says so."""
    needs(manager, "memory")
    apply(manager, {"memory": {"limit": 16 << 20, "swap": 16 << 20}})
    assert oom_kills(manager) == 0
    pid = start(manager, lambda: len(bytearray(64 << 20)) and bytearray(b"x") * (64 << 20) is None)
    assert exit_code(pid) == -signal.SIGKILL
    assert oom_kills(manager) == 1


def test_cpu_limits_in_any_order(manager: Manager) -> None:
    """Quota, period and burst move together in either direction; an impossible period is an error that names it."""
    needs(manager, "cpu")
    for quota, period in ((500000, 1000000), (3000, 10000), (600000, 900000), (-1, 100000)):
        apply(manager, {"cpu": {"quota": quota, "period": period}})
        if manager.v2:
            assert value(manager, "cpu.max") == f"{quota if quota > 0 else 'max'} {period}"
        else:
            assert value(manager, "cpu.cfs_quota_us") == str(quota)
            assert value(manager, "cpu.cfs_period_us") == str(period)
    apply(manager, {"cpu": {"quota": 50000, "period": 100000, "burst": 50000}})
    assert value(manager, "cpu.cfs_burst_us", "cpu.max.burst") == "50000"
    with pytest.raises(CgroupError, match=r"unable to set cpu\..* to '.*100'.*: invalid argument"):
        apply(manager, {"cpu": {"period": 100}})


def test_shares_out_of_range_are_told(manager: Manager) -> None:
    """v1 clamps shares silently; we say what would have happened."""
    if manager.v2:
        pytest.skip("v2 weights are converted into range; to force it: run on cgroup v1")
    apply(manager, {"cpu": {"shares": 100}})
    assert value(manager, "cpu.shares") == "100"
    with pytest.raises(CgroupError, match="minimum allowed"):
        apply(manager, {"cpu": {"shares": 1}})


def test_pids_limit(manager: Manager) -> None:
    """The limit binds: fork fails when it is reached."""
    needs(manager, "pids")
    apply(manager, {"pids": {"limit": 1}})

    def fork() -> bool:
        try:
            os.fork()
        except BlockingIOError:
            return True
        return False

    assert exit_code(start(manager, fork)) == 0


def test_missing_controller_is_named(manager: Manager) -> None:
    """A limit for a controller that is not there is an error that names it; an optional one is not."""
    with pytest.raises(CgroupError, match=r"nosuch"):
        manager.apply([Setting("nosuch", "nosuch.max", 1)])
    manager.apply([Setting("nosuch", "nosuch.max", 1, optional=True)])


def test_devices_bind(manager: Manager) -> None:
    """A device that no rule allows cannot be opened; update of the rules takes effect on what runs."""
    kmsg: DeviceCgroup = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "rw"}

    def readable(path: str) -> bool:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        except PermissionError:
            return False
        return True

    kind = "v2" if manager.v2 else "v1"
    manager.apply(convert({"devices": [{"allow": False, "access": "rwm"}]}, kind))
    assert exit_code(start(manager, lambda: readable("/dev/null") and not readable("/dev/kmsg"))) == 0
    manager.apply(convert({"devices": [{"allow": False, "access": "rwm"}, kmsg]}, kind))
    assert exit_code(start(manager, lambda: readable("/dev/null") and readable("/dev/kmsg"))) == 0


def test_stats_have_numbers(manager: Manager) -> None:
    """What a process uses is counted, and limits are told, on every layout."""
    for controller in ("memory", "pids", "cpu"):
        needs(manager, controller)
    apply(manager, {"memory": {"limit": 32 << 20}, "pids": {"limit": 7}})
    start(manager, lambda: [sum(range(1000)) for _ in iter(int, 1)])
    deadline = time.monotonic() + 20
    table: dict[str, Any] = {}
    while not table.get("cpu", {}).get("usage", {}).get("total"):  # zero is left out
        assert time.monotonic() < deadline, table
        table = stats(manager)
    assert table["cpu"]["usage"]["total"] > 0
    assert table["memory"]["usage"]["limit"] == 32 << 20
    assert 0 < table["memory"]["usage"]["usage"] <= table["memory"]["swap"]["usage"]
    assert "pgfault" in table["memory"]["raw"]
    assert table["pids"] == {"current": 1, "limit": 7}
    assert list(table) == [
        *("cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"),
        *(["misc"] if "misc" in table else []),
    ]


def test_oom_kills_are_told(new_manager: Callable[[], Manager], layout: Layout) -> None:
    """Each of two containers on its own, by one watch; a forgotten one and a removed one are silent."""
    first, second = new_manager(), new_manager()
    for manager in (first, second):
        manager.create(layout)
        needs(manager, "memory")
        apply(manager, {"memory": {"limit": 16 << 20, "swap": 16 << 20}})
    told: list[str] = []

    def outgrow(manager: Manager) -> None:
        pid = start(manager, lambda: bytearray(b"x") * (64 << 20) is None)
        assert exit_code(pid) == -signal.SIGKILL

    async def until(count: int) -> None:
        deadline = time.monotonic() + 20
        while len(told) < count:
            assert time.monotonic() < deadline, told
            await asyncio.sleep(0.01)

    async def main() -> None:
        before = set(os.listdir("/proc/self/fd"))
        watch = OomWatch(asyncio.get_running_loop())
        assert watch.watch("first", first.paths, lambda: told.append("first"))
        assert watch.watch("second", second.paths, lambda: told.append("second"))
        outgrow(second)
        await until(1)
        outgrow(first)
        watch.check("first")
        await until(2)
        watch.forget("first")
        outgrow(first)
        second.remove()
        await asyncio.sleep(0.1)
        watch.close()
        assert not watch.watch("gone", second.paths, lambda: told.append("gone"))
        watch.close()
        assert set(os.listdir("/proc/self/fd")) == before

    loops.run(main())
    assert told == ["second", "first"]

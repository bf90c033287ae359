"""The cgroup manager on this machine's own layout, whichever it is: v1, hybrid or v2."""

import asyncio
import os
import pathlib
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sysvisor_runc.aio import loop as loops
from sysvisor_runc.aio.oom import OomWatch
from sysvisor_runc.cgroup import tree
from sysvisor_runc.cgroup.delegation import delegate
from sysvisor_runc.cgroup.driver import open_driver
from sysvisor_runc.cgroup.layout import LEAF_V1, UNIFIED, Layout, detect
from sysvisor_runc.cgroup.manager import Manager
from sysvisor_runc.cgroup.resources import convert
from sysvisor_runc.cgroup.settings import Setting
from sysvisor_runc.cgroup.stats import oom_kills, stats
from sysvisor_runc.errors import CgroupError
from sysvisor_runc.kernel.namespaces import clone3
from sysvisor_runc.spec.types import DeviceCgroup, LinuxResources

pytestmark = pytest.mark.root

UID = 300000


@pytest.fixture
def layout() -> Layout:
    found = detect()
    if found.kind == "none":
        pytest.skip("no cgroup hierarchy is mounted; to force it: mount -t cgroup2 cgroup2 /sys/fs/cgroup")
    return found


@pytest.fixture
def new_manager(layout: Layout) -> Iterator[Callable[[], Manager]]:
    """Makes managers of cgroups with names of their own; all go when the test ends, processes included."""
    managers: list[Manager] = []

    def make() -> Manager:
        manager = open_driver(layout, f"/sysvisor-test-{uuid.uuid4().hex[:8]}", "id")
        managers.append(manager)
        return manager

    yield make
    for manager in managers:
        manager.kill_all(signal.SIGKILL)
        manager.remove()


@pytest.fixture
def manager(new_manager: Callable[[], Manager], layout: Layout) -> Manager:
    manager = new_manager()
    manager.create(layout)
    return manager


def value(manager: Manager, v1: str, v2: str | None = None) -> str:
    """What a control file of the container reads: the v1 name's, or the v2 name's."""
    if manager.v2:
        return pathlib.Path(manager.paths[UNIFIED], v2 or v1).read_text().strip()
    return pathlib.Path(manager.paths[v1.partition(".")[0]], v1).read_text().strip()


def needs(manager: Manager, controller: str) -> None:
    """Skip where the machine lacks a controller."""
    if manager.v2:
        available = pathlib.Path(manager.paths[UNIFIED], "cgroup.controllers").read_text().split()
    else:
        available = list(manager.paths)
    if controller not in available:
        pytest.skip(f"no {controller} controller here; to force it: make test-vm")


def apply(manager: Manager, resources: LinuxResources) -> None:
    manager.apply(convert(resources, "v2" if manager.v2 else "v1", devices=False))


def start(manager: Manager, body: Callable[[], object] | None = None, *, gid_uid: int = 0) -> int:
    """Start a process in the container's cgroups as a launch does, and wait until it is there; returns its pid."""
    fds = manager.join_fds()
    into = manager.clone_into_fd(manager.exec_paths())
    done, tell = os.pipe()
    pid, pidfd = clone3(0, cgroup_fd=into)
    if pid == 0:
        status = 1
        try:
            for fd in fds:
                os.write(fd, b"0")
            if gid_uid:
                os.setgid(gid_uid)
                os.setuid(gid_uid)
            os.write(tell, b"x")
            if body is None:
                while True:
                    time.sleep(100)
            status = 0 if body() in (None, True) else 1
        finally:
            os._exit(status)
    for fd in (*fds, pidfd, tell, *([] if into is None else [into])):
        os.close(fd)
    assert os.read(done, 1) == b"x"
    os.close(done)
    return pid


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_create_makes_and_discard_unmakes(new_manager: Callable[[], Manager], layout: Layout) -> None:
    """Create says what it made, every hierarchy's cgroup among it, and a second create makes nothing."""
    manager = new_manager()
    made = manager.create(layout)
    assert set(manager.paths.values()) <= set(made)
    assert manager.exists()
    assert manager.create(layout) == []


def test_create_under_missing_parents(new_manager: Callable[[], Manager], layout: Layout) -> None:
    """Missing parents are made too, come first in the list, and can be joined below."""
    manager = new_manager()
    top = dict(manager.paths)
    manager.paths = {key: f"{path}/deep/er" for key, path in top.items()}
    made = manager.create(layout)
    assert len(made) == 3 * len(manager.directories())
    pid = start(manager)
    assert manager.pids() == [pid]
    manager.kill_all(signal.SIGKILL)
    assert exit_code(pid) == -signal.SIGKILL
    manager.paths = top


def test_failed_create_leaves_nothing(new_manager: Callable[[], Manager], layout: Layout) -> None:
    """Where one hierarchy fails, what the others got is removed again."""
    manager = new_manager()
    last = list(manager.directories())[-1]
    # The kernel lets no cgroup have a newline in its name.
    manager.paths = {key: (path + "\n" if path == last else path) for key, path in manager.paths.items()}
    with pytest.raises(CgroupError, match="invalid argument"):
        manager.create(layout)
    assert not manager.exists()
    assert not os.path.exists(last)


def test_joined_process_is_everywhere(manager: Manager) -> None:
    """A process that joined is in the container's cgroup of every hierarchy."""
    pid = start(manager)
    text = pathlib.Path(f"/proc/{pid}/cgroup").read_text()
    name = os.path.basename(next(iter(manager.paths.values())))
    lines = [line for line in text.splitlines() if line.split(":")[1] in manager.paths or line.startswith("0::")]
    if UNIFIED not in manager.paths:
        lines = [line for line in lines if not line.startswith("0::")]
    assert lines
    assert all(line.endswith(name) for line in lines)
    assert manager.pids() == [pid]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_used_cgroup_is_refused(manager: Manager, layout: Layout) -> None:
    """A cgroup that holds processes is not taken over, with runc's words."""
    pid = start(manager)
    with pytest.raises(CgroupError, match="container's cgroup is not empty: 1 process"):
        manager.create(layout)
    manager.kill_all(signal.SIGKILL)
    os.waitpid(pid, 0)


def test_frozen_cgroup_is_refused(manager: Manager, layout: Layout) -> None:
    """A frozen cgroup would hang the launch: it is refused with runc's words."""
    manager.freeze()
    with pytest.raises(CgroupError, match="container's cgroup unexpectedly frozen"):
        manager.create(layout)
    manager.thaw()
    assert manager.create(layout) == []


def test_freeze_and_thaw(manager: Manager) -> None:
    """A frozen process stands still, a thawed one goes on, and `frozen` knows."""
    turn, tick = os.pipe()

    def write_on() -> None:
        while True:
            os.write(tick, b".")
            time.sleep(0.001)

    pid = start(manager, write_on)
    os.close(tick)
    os.read(turn, 1)
    assert not manager.frozen()
    manager.freeze()
    assert manager.frozen()
    os.set_blocking(turn, False)
    while True:  # drain; a frozen writer adds nothing afterwards
        try:
            os.read(turn, 1 << 16)
        except BlockingIOError:
            break
    time.sleep(0.02)
    with pytest.raises(BlockingIOError):
        os.read(turn, 1)
    manager.thaw()
    os.set_blocking(turn, True)
    assert os.read(turn, 1) == b"."
    manager.kill_all(signal.SIGKILL)
    assert exit_code(pid) == -signal.SIGKILL
    os.close(turn)


def test_kill_all_reaches_a_frozen_tree(manager: Manager) -> None:
    """SIGKILL ends processes in a frozen container, and those that the container froze below by itself."""
    pid = start(manager)
    below = {key: f"{path}/own" for key, path in manager.paths.items()}
    inner = Manager(below)
    inner.create(detect())
    other = start(inner)
    inner.freeze()
    manager.freeze()
    manager.kill_all(signal.SIGKILL)
    assert exit_code(pid) == -signal.SIGKILL
    assert exit_code(other) == -signal.SIGKILL
    manager.remove()
    assert not manager.exists()


def test_kill_all_beats_a_fork_bomb(manager: Manager) -> None:
    """No process slips away by forking while the others are being killed."""

    def bomb() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            if len(os.listdir("/proc/self/task")) == 1 and os.fork() == 0:
                time.sleep(0.005)

    apply(manager, {"pids": {"limit": 60}} if "pids" in manager.paths else {})
    pid = start(manager, bomb)
    time.sleep(0.05)
    manager.kill_all(signal.SIGKILL)
    os.waitpid(pid, 0)
    manager.remove()
    assert not manager.exists()


def test_other_signals_do_not_thaw(manager: Manager) -> None:
    """SIGTERM leaves a paused container paused; on v1 it is delivered on resuming, on v2 a deadly one at once."""
    pid = start(manager)
    manager.freeze()
    assert manager.kill_all(signal.SIGTERM) == 1
    assert manager.frozen()
    if not manager.v2:
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    manager.thaw()
    assert exit_code(pid) == -signal.SIGTERM


def test_remove_takes_what_the_container_made(manager: Manager) -> None:
    """Cgroups below go too, deeper than a path can say and more than a few beside each other."""
    for path in manager.directories():
        for index in range(5):
            os.makedirs(f"{path}/a{index}/b/c")
    path = next(iter(manager.directories()))
    fd = os.open(path, os.O_RDONLY)
    for _ in range(25):  # 25 names of 200 bytes are longer than PATH_MAX
        name = "d" * 200
        os.mkdir(name, dir_fd=fd)
        new = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = new
    os.close(fd)
    manager.remove()
    assert not manager.exists()
    manager.remove()  # absent is fine


def test_remove_takes_its_time(manager: Manager) -> None:
    """Patience is for processes that stay: many cgroups of which none holds any go, however long that takes."""
    path = next(iter(manager.directories()))
    for index in range(300):
        os.mkdir(f"{path}/{index}")
    tree.remove(path, patience=0.002)
    assert not os.path.exists(path)


def test_remove_tells_what_is_left(manager: Manager) -> None:
    """A cgroup in use stays, and the error says by how many; a later remove succeeds."""
    pid = start(manager)
    with pytest.raises(CgroupError, match=r"busy: 1 process\(es\) left"):
        manager.remove(patience=0.01)
    manager.kill_all(signal.SIGKILL)
    os.waitpid(pid, 0)
    manager.remove()


def test_pids_below(manager: Manager) -> None:
    """Processes of cgroups below count, unless asked not to."""
    inner = Manager({key: f"{path}/sub" for key, path in manager.paths.items()})
    inner.create(detect())
    pid = start(inner)
    assert manager.pids() == [pid]
    assert manager.pids(recursive=False) == []
    manager.kill_all(signal.SIGKILL)
    os.waitpid(pid, 0)


def test_directories_come_parents_first(tmp_path: pathlib.Path) -> None:
    """The walk visits every directory once, parents before children."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "c").mkdir()
    seen = [os.readlink(f"/proc/self/fd/{fd}") for fd in tree.directories(str(tmp_path))]
    assert seen[0] == str(tmp_path)
    assert seen.index(f"{tmp_path}/a") < seen.index(f"{tmp_path}/a/b")
    assert len(seen) == 4


# ---- limits


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


# ---- delegation


def as_container_root(manager: Manager, body: Callable[[], object]) -> int:
    return exit_code(start(manager, body, gid_uid=UID))


def test_delegated_root_makes_cgroups(manager: Manager) -> None:
    """The container's root makes a cgroup in every hierarchy it was given and moves itself there."""
    delegate(manager, UID, UID)
    paths = set(manager.exec_paths().values())

    def work() -> None:
        for path in paths:
            os.mkdir(f"{path}/mine")
            if f"{path}/mine" == f"{manager.exec_paths().get('cpuset')}/mine":
                assert pathlib.Path(path, "mine/cpuset.cpus").read_text().strip()
            pathlib.Path(path, "mine/cgroup.procs").write_text("0")

    assert as_container_root(manager, work) == 0


def test_delegated_root_cannot_raise_limits(manager: Manager) -> None:
    """No limit file of the container's cgroup, nor of the leaf, can be written by the container's root."""
    delegate(manager, UID, UID)
    directories = {*manager.paths.values(), *manager.exec_paths().values()}
    # The kernel makes event_control writable by all; it only asks to be told of events.
    allowed = {"cgroup.procs", "tasks", "cgroup.subtree_control", "cgroup.threads", "cgroup.event_control"}

    def work() -> None:
        for directory in directories:
            for name in os.listdir(directory):
                path = f"{directory}/{name}"
                if os.path.isfile(path) and os.access(path, os.W_OK):
                    assert name in allowed, path

    assert as_container_root(manager, work) == 0


def test_delegated_memory_stays_bound(manager: Manager) -> None:
    """A cgroup that the container makes for itself is still under the container's limit."""
    needs(manager, "memory")
    apply(manager, {"memory": {"limit": 16 << 20, "swap": 16 << 20}})
    delegate(manager, UID, UID)
    path = manager.exec_paths()[UNIFIED if manager.v2 else "memory"]

    def work() -> None:
        os.mkdir(f"{path}/mine")
        pathlib.Path(path, "mine/cgroup.procs").write_text("0")
        bytearray(b"x") * (64 << 20)

    assert as_container_root(manager, work) == -signal.SIGKILL


def block_device() -> tuple[int, int]:
    """The number of some whole disk."""
    for entry in sorted(pathlib.Path("/sys/block").iterdir()):
        if int((entry / "size").read_text()):
            major, minor = (entry / "dev").read_text().split(":")
            return int(major), int(minor)
    pytest.skip("no block device; to force it: losetup -f FILE")


def test_throttled_blkio_is_not_delegated(manager: Manager) -> None:
    """v1 throttles bind one cgroup only, so with one set the container gets it and may not make cgroups there."""
    if "blkio" not in manager.paths:
        pytest.skip("no v1 blkio controller; to force it: run on cgroup v1")
    major, minor = block_device()
    throttle: LinuxResources = {
        "blockIO": {"throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": 1 << 20}]}
    }
    apply(manager, throttle)
    delegate(manager, UID, UID)
    leaf = pathlib.Path(manager.paths["blkio"], LEAF_V1)
    assert leaf.stat().st_uid == 0
    file = leaf / "blkio.throttle.read_bps_device"
    assert file.read_text().split() == [f"{major}:{minor}", str(1 << 20)]
    # An update later reaches it as well.
    throttle["blockIO"]["throttleReadBpsDevice"][0]["rate"] = 2 << 20
    apply(manager, throttle)
    assert file.read_text().split() == [f"{major}:{minor}", str(2 << 20)]


def test_throttle_set_later_is_passed_on(manager: Manager) -> None:
    """A throttle that comes with an update reaches the cgroups that the container has made, and takes them back."""
    if "blkio" not in manager.paths:
        pytest.skip("no v1 blkio controller; to force it: run on cgroup v1")
    delegate(manager, UID, UID)
    mine = pathlib.Path(manager.paths["blkio"], LEAF_V1, "mine")
    mine.mkdir()
    os.chown(mine, UID, UID)
    major, minor = block_device()
    apply(manager, {"blockIO": {"throttleWriteBpsDevice": [{"major": major, "minor": minor, "rate": 1 << 20}]}})
    assert (mine / "blkio.throttle.write_bps_device").read_text().split() == [f"{major}:{minor}", str(1 << 20)]
    assert mine.stat().st_uid == 0


def test_cpuset_reaches_the_leaf(manager: Manager) -> None:
    """A cpuset that is narrowed, moved and widened again takes the container's own cgroups along."""
    if "cpuset" not in manager.paths:
        pytest.skip("no v1 cpuset controller; to force it: run on cgroup v1")
    before = value(manager, "cpuset.cpus")
    delegate(manager, UID, UID)
    leaf = pathlib.Path(manager.paths["cpuset"], LEAF_V1, "cpuset.cpus")
    each = before.replace("-", ",").split(",")
    for cpus in (each[0], each[-1], each[0], before):
        apply(manager, {"cpu": {"cpus": cpus}})
        assert leaf.read_text().strip() == value(manager, "cpuset.cpus") == cpus


def test_unprivileged_caller_gets_a_clear_error(new_manager: Callable[[], Manager], layout: Layout) -> None:
    """Without permission the error names the directory and says what would help; tolerant callers go without."""
    manager = new_manager()
    paths = dict(manager.paths)

    def work() -> None:
        with pytest.raises(
            CgroupError, match=r"unable to apply cgroup configuration: mkdir .*: permission denied"
        ) as e:
            manager.create(layout)
        assert e.value.hint is not None
        assert manager.create(layout, tolerant=True) == []
        assert manager.paths == {}

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgid(UID)
            os.setuid(UID)
            work()
            status = 0
        finally:
            os._exit(status)
    assert exit_code(pid) == 0
    assert manager.paths == paths

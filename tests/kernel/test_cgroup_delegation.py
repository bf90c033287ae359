"""What the container's root may do in its cgroups and what not, on this machine's own layout."""

import os
import pathlib
import signal
from collections.abc import Callable

import pytest

from sysvisor_runc.cgroup.delegation import delegate
from sysvisor_runc.cgroup.layout import LEAF_V1, UNIFIED, Layout
from sysvisor_runc.cgroup.manager import Manager
from sysvisor_runc.errors import CgroupError
from sysvisor_runc.spec.types import LinuxResources
from tests.support.cgroups import UID, apply, as_container_root, exit_code, needs, value

pytestmark = pytest.mark.root


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

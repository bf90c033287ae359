"""The cgroup manager on this machine's own layout, whichever it is: v1, hybrid or v2."""

import os
import pathlib
import signal
import time
from collections.abc import Callable

import pytest

from sysvisor_runc.cgroup import tree
from sysvisor_runc.cgroup.layout import UNIFIED, Layout, detect
from sysvisor_runc.cgroup.manager import Manager
from sysvisor_runc.errors import CgroupError
from tests.support.cgroups import apply, exit_code, start

pytestmark = pytest.mark.root


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

"""The life of a container, command by command, as a system container and as a plain one."""

import os
import pathlib
import re
import signal
from collections.abc import Callable

import pytest

from tests.support.bundle import Bundle
from tests.support.runtime import Runtime, wait_until

MODES = ["runtime", "plain_runtime"]


@pytest.fixture(params=MODES)
def either(request: pytest.FixtureRequest) -> Runtime:
    """The runtime in one mode and then in the other."""
    runtime: Runtime = request.getfixturevalue(request.param)
    return runtime


def sleeping(bundle: Bundle) -> str:
    """Make the container's init sleep, and name the bundle for --bundle."""
    bundle.run("/bin/sleep", "1000")
    return str(bundle.path)


def test_create_start_kill_delete(either: Runtime, bundle: Bundle) -> None:
    """Each command takes the container to the next status, and nothing is left at the end."""
    name = either.id()
    either("create", "--bundle", sleeping(bundle), name)
    created = either.state(name)
    assert (created["status"], created["bundle"]) == ("created", str(bundle.path))
    assert pathlib.Path(f"/proc/{created['pid']}/exe").readlink().name.startswith("memfd:sysvisor-runc init")
    either("start", name)
    running = either.state(name)
    assert (running["status"], running["pid"]) == ("running", created["pid"])
    assert pathlib.Path(f"/proc/{created['pid']}/cmdline").read_bytes() == b"/bin/sleep\x001000\x00"
    either("kill", name, "KILL")
    assert either.wait_status(name, "stopped")["pid"] == 0
    either("delete", name)
    assert either.ids() == []


def test_run_returns_the_exit_code(either: Runtime, bundle: Bundle) -> None:
    """Foreground `run` exits as its init does, 128+n for a signal, and deletes the container."""
    assert either("run", "--bundle", bundle.sh("exit 7").path, either.id(), check=False).returncode == 7
    name = either.id()
    attended = either.start_background("run", "--bundle", sleeping(bundle), name)
    wait_until(lambda: either("state", name, check=False).returncode == 0 and either.state(name)["status"] == "running")
    either("kill", name, "KILL")
    assert attended.wait().returncode == 128 + signal.SIGKILL
    assert either.ids() == []


def test_keep_leaves_a_stopped_container(either: Runtime, bundle: Bundle) -> None:
    """`run --keep` leaves the container stopped, for `state` and `delete`."""
    name = either.id()
    either("run", "--keep", "--bundle", bundle.path, name)
    assert either.state(name)["status"] == "stopped"
    either("delete", name)


def test_detached_run_writes_the_pid_file(either: Runtime, bundle: Bundle, tmp_path: pathlib.Path) -> None:
    """`run -d --pid-file` returns once the program runs, with the pid on disk; init belongs to our nearest reaper."""
    name, file = either.id(), tmp_path / "pid"
    either("run", "--detach", "--pid-file", file, "--bundle", sleeping(bundle), name)
    pid = int(file.read_text())
    assert either.state(name)["pid"] == pid
    assert pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/bin/sleep")


def test_exec_runs_beside_init(either: Runtime, bundle: Bundle) -> None:
    """`exec` runs a process in the container's namespaces and cgroup, and exits with its code."""
    name = either.id()
    either("run", "--detach", "--bundle", sleeping(bundle), name)
    result = either("exec", name, "/bin/sh", "-c", "cat /proc/1/cmdline; exit 3", check=False)
    assert (result.returncode, result.stdout) == (3, "/bin/sleep\0001000\000")
    pid = either.state(name)["pid"]
    inside = either("exec", name, "/bin/cat", "/proc/self/cgroup").stdout
    assert inside == either("exec", name, "/bin/cat", "/proc/1/cgroup").stdout
    assert os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")


def test_exec_in_a_created_container(either: Runtime, bundle: Bundle) -> None:
    """A created container takes further processes before its own program runs, and starts normally afterwards."""
    name = either.id()
    either("create", "--bundle", sleeping(bundle), name)
    assert either("exec", name, "/bin/echo", "early").stdout == "early\n"
    assert either.state(name)["status"] == "created"
    either("start", name)
    assert either.state(name)["status"] == "running"


@pytest.mark.parametrize("verb", ["state", "start", "kill", "exec", "pause", "resume", "ps", "delete", "update"])
def test_unknown_containers(plain_runtime: Runtime, verb: str) -> None:
    """Every command says in one line that the container does not exist."""
    arguments = [verb, "nobody"] + (["/bin/true"] if verb == "exec" else [])
    result = plain_runtime.fails(*arguments)
    assert "container does not exist" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_wrong_status(either: Runtime, bundle: Bundle) -> None:
    """A command that does not fit the status is refused in runc's words and changes nothing."""
    name = either.id()
    either("create", "--bundle", sleeping(bundle), name)
    assert "container with given ID already exists" in either.fails("create", "--bundle", bundle.path, name).stderr
    either("start", name)
    assert "cannot start an already running container" in either.fails("start", name).stderr
    assert "that is not stopped: running" in either.fails("delete", name).stderr
    assert either.state(name)["status"] == "running"
    either("pause", name)
    assert "cannot exec in a paused container" in either.fails("exec", name, "/bin/true").stderr
    either("resume", name)
    either("delete", "--force", name)
    either("delete", "--force", name)


def test_signals_reach_init(either: Runtime, bundle: Bundle, tmp_path: pathlib.Path) -> None:
    """`kill` takes names with and without SIG, and numbers."""
    name = either.id()
    bundle.sh("trap 'echo usr1' USR1; trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    attended = either.start_background("run", "--bundle", bundle.path, name)
    wait_until(lambda: "ready" in attended.stdout, what="the trap")
    either("kill", name, "USR1")
    wait_until(lambda: "usr1" in attended.stdout, what="SIGUSR1")
    either("kill", name, str(signal.SIGTERM.value))
    assert attended.wait().returncode == 5


def test_preserved_descriptors(either: Runtime, bundle: Bundle, tmp_path: pathlib.Path) -> None:
    """--preserve-fds hands on just that many descriptors; others of the caller are closed."""
    (tmp_path / "three").write_text("third")
    wanted, unwanted = os.open(tmp_path / "three", os.O_RDONLY), os.open(tmp_path, os.O_RDONLY)
    script = "exec 3<&3; cat <&3; ls /proc/self/fd | wc -l"
    try:
        os.dup2(wanted, 3)
        os.set_inheritable(3, True)
        result = either(
            "run", "--preserve-fds", "1", "--bundle", bundle.sh(script).path, either.id(), pass_fds=(3, unwanted)
        )
    finally:
        os.close(unwanted)
    # stdin, stdout, stderr, the preserved one, and the one that ls lists with.
    assert result.stdout == "third5\n"


def test_stdout_belongs_to_the_container(runtime: Runtime, bundle: Bundle) -> None:
    """Inside a user namespace /dev/stdout can be opened again: stdio is given to the container's user."""
    result = runtime("run", "--bundle", bundle.sh("echo again >/dev/stdout").path, runtime.id())
    assert result.stdout == "again\n"


def test_two_system_containers_never_share_ids(runtime: Runtime, new_bundle: Callable[..., Bundle]) -> None:
    """Each system container has a range of host ids of its own, which the next may have once it is deleted."""
    first, second = runtime.id(), runtime.id()
    for name in (first, second):
        runtime("run", "--detach", "--bundle", new_bundle("/bin/sleep", "1000").path, name)
    maps = [pathlib.Path(f"/proc/{runtime.state(name)['pid']}/uid_map").read_text().split() for name in (first, second)]
    starts = sorted(int(row[1]) for row in maps)
    assert [row[2] for row in maps] == ["65536", "65536"]
    assert starts[1] - starts[0] >= 65536
    assert starts[0] > 65536


def test_the_rootfs_is_not_chowned(runtime: Runtime, bundle: Bundle) -> None:
    """The container's root owns the files it sees and makes, yet on the host they are root's: an ID-mapped mount."""
    before = bundle.rootfs.stat()
    runtime("run", "--bundle", bundle.sh("[ $(stat -c %u /bin/busybox) = 0 ] && echo made >/new").path, runtime.id())
    after = bundle.rootfs.stat()
    assert (before.st_uid, before.st_gid) == (after.st_uid, after.st_gid) == (0, 0)
    assert (bundle.rootfs / "new").stat().st_uid == 0


def test_debug_prints_the_plan(either: Runtime, bundle: Bundle) -> None:
    """`--debug run` says what the host and the child will do, step by step."""
    result = either("--debug", "run", "--bundle", bundle.path, either.id())
    assert "plan: host: clone3 with new namespaces:" in result.stderr
    assert "plan: child: execve /bin/true" in result.stderr


def test_debug_prints_the_plan_of_exec(either: Runtime, bundle: Bundle) -> None:
    """`--debug exec` says what it joins, and what the process does inside."""
    name = either.id()
    either("run", "--detach", "--bundle", bundle.run("/bin/sleep", "1000").path, name)
    result = either("--debug", "exec", "--user", "7:8", name, "/bin/true")
    assert f"plan: host: join namespaces of process {either.state(name)['pid']}: " in result.stderr
    assert re.search(rf"plan: host: join cgroup .*{name}", result.stderr)
    assert "plan: child: become 7:8" in result.stderr
    assert "plan: child: execve /bin/true" in result.stderr
    assert "plan:" not in either("exec", name, "/bin/true").stderr

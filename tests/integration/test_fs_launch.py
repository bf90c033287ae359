"""Launches with sysvisor-fs: who is told what and when, what a failure leaves, and daemons of other makes."""

import contextlib
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from sysvisor_fs.origins import cgroups_of
from sysvisor_runc.launch.steps import FS_STEPS
from tests.support import leaks
from tests.support.bundle import Bundle
from tests.support.fs_own import OwnDaemon
from tests.support.runtime import SOURCE, Running, Runtime, wait_until
from tests.support.supervised import alive, events, status
from tests.support.weakened import weakened

NewBundle = Callable[..., Bundle]


@pytest.fixture
def daemon(workplace: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnDaemon]:
    """A place for a daemon, which is ended with all that it has set up."""
    daemon = OwnDaemon(workplace)
    for name, value in daemon.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SYSVISOR_FS_TREE", "tests.support.fs_served")
    yield daemon
    daemon.stop()


@pytest.fixture
def fs_runtime(workplace: pathlib.Path, daemon: OwnDaemon) -> Iterator[Runtime]:
    """`sysvisor-runc` as it is, without a flag, and the leak check once the daemon has ended."""
    runtime = Runtime(workplace)
    yield runtime
    runtime.clean()
    daemon.stop()
    wait_until(lambda: leaks.find(runtime) == [], what="an end of everything")


def test_files_are_the_containers_own(fs_runtime: Runtime, daemon: OwnDaemon, new_bundle: NewBundle) -> None:
    """What is read inside is served for this container, its init and its ids; then nobody knows it any more."""
    name = fs_runtime.id()
    script = "cat /proc/uptime /proc/meminfo /proc/sys/kernel/hostname; grep -c fuse /proc/mounts"
    bundle = new_bundle("/bin/sh", "-c", script)
    lines = fs_runtime("run", "--bundle", bundle.path, name).stdout.splitlines()
    words = [line.split() for line in lines]
    assert [word[:2] for word in words[:3]] == [["uptime", name], ["meminfo", name], ["hostname", name]]
    assert int(words[0][2]) > 1
    assert int(words[0][3]) > 0
    assert int(words[3][0]) >= 4
    assert daemon.served() == []


def test_life_of_a_registration(fs_runtime: Runtime, daemon: OwnDaemon, new_bundle: NewBundle) -> None:
    """A created container is registered, and forgotten when it is deleted; `--no-sysvisor-fs` need not be repeated."""
    bundle = new_bundle("/bin/sleep", "1000")
    with_fs, without = fs_runtime.id(), fs_runtime.id()
    fs_runtime("create", "--bundle", bundle.path, with_fs)
    fs_runtime("--no-sysvisor-fs", "create", "--bundle", bundle.path, without)
    assert daemon.served() == [with_fs]
    fs_runtime("start", with_fs)
    fs_runtime("start", without)
    assert fs_runtime("exec", with_fs, "/bin/cat", "/proc/uptime").stdout.startswith(f"uptime {with_fs} ")
    assert "uptime" not in fs_runtime("exec", without, "/bin/cat", "/proc/uptime").stdout
    fs_runtime("delete", "--force", with_fs)
    fs_runtime("delete", "--force", without)
    assert daemon.served() == []


def test_many_at_once_start_one_daemon(fs_runtime: Runtime, daemon: OwnDaemon, new_bundle: NewBundle) -> None:
    """Launches that find no daemon start one, in cgroups and a session of its own, and all are served by it.

    Its share of the CPUs is more than the default, since all of them wait for it.
    """
    bundle = new_bundle("/bin/cat", "/proc/uptime")
    names = [fs_runtime.id() for _ in range(4)]
    running = [fs_runtime.start_background("run", "--bundle", bundle.path, name) for name in names]
    results = [one.wait(60) for one in running]
    assert [result.returncode for result in results] == [0] * 4, results
    assert [result.stdout.split()[1] for result in results] == names
    pid = daemon.status()["pid"]
    assert os.getsid(pid) != os.getsid(0)
    groups = pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    assert all(line.endswith(":/sysvisor-fs") for line in groups if ":name=" not in line), groups
    cgroups = cgroups_of(pid)
    weights = [
        pathlib.Path(cgroups.get("cpu", "/"), "cpu.shares"),
        pathlib.Path(cgroups.get("unified", "/"), "cpu.weight"),
    ]
    assert [path for path in weights if path.exists() and path.read_text() in ("1024\n", "100\n")] == []


def test_daemon_that_cannot_start(
    fs_runtime: Runtime, daemon: OwnDaemon, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line names the log and the way without; nothing is left."""
    monkeypatch.setenv("SYSVISOR_FS_TREE", "no.such.tree")
    name = fs_runtime.id()
    failed = fs_runtime.fails("run", "--bundle", bundle.path, name)
    (line,) = failed.stderr.splitlines()
    assert f"{daemon.run_dir}/sysvisor-fs.log" in line
    assert "--no-sysvisor-fs" in line
    assert "no.such.tree" in (daemon.run_dir / "sysvisor-fs.log").read_text()
    assert fs_runtime.ids() == []


def test_plain_containers_do_without(fs_runtime: Runtime, daemon: OwnDaemon, bundle: Bundle) -> None:
    """Neither `--no-syscont` nor `--no-sysvisor-fs` starts a daemon."""
    fs_runtime("--no-syscont", "run", "--bundle", bundle.path, fs_runtime.id())
    fs_runtime("--no-sysvisor-fs", "run", "--bundle", bundle.path, fs_runtime.id())
    assert not daemon.run_dir.exists()


@pytest.mark.parametrize("step", [*FS_STEPS, "start"])
def test_failed_launch_unregisters(
    step: str, fs_runtime: Runtime, daemon: OwnDaemon, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever step fails: the daemon knows nothing of the container afterwards."""
    monkeypatch.setenv("SYSVISOR_RUNC_FAULT", f"fail:{step}")
    failed = fs_runtime.fails("run", "--bundle", bundle.path, fs_runtime.id())
    assert f"fault injected at step {step!r}" in failed.stderr
    monkeypatch.delenv("SYSVISOR_RUNC_FAULT")
    assert fs_runtime.ids() == []
    if step != "fs-daemon":
        assert daemon.served() == []


@pytest.mark.parametrize("step", FS_STEPS[1:])
def test_killed_launch_leaves_no_registration(
    step: str, fs_runtime: Runtime, daemon: OwnDaemon, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that was killed cannot unregister; the daemon sees that it, or its init, has ended."""
    name = fs_runtime.id()
    monkeypatch.setenv("SYSVISOR_RUNC_FAULT", f"kill:{step}")
    fs_runtime("run", "--bundle", bundle.path, name, check=False)
    monkeypatch.delenv("SYSVISOR_RUNC_FAULT")
    wait_until(lambda: daemon.served() == [], 20, "an empty registry")
    fs_runtime("delete", "--force", name)


def test_killed_launch_of_what_stays(
    fs_runtime: Runtime, daemon: OwnDaemon, new_bundle: NewBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has been recorded is a container, whoever made it: it is served until it is deleted."""
    name = fs_runtime.id()
    monkeypatch.setenv("SYSVISOR_RUNC_FAULT", "kill:record")
    fs_runtime("create", "--bundle", new_bundle("/bin/sleep", "1000").path, name, check=False)
    monkeypatch.delenv("SYSVISOR_RUNC_FAULT")
    fs_runtime("start", name)
    assert fs_runtime("exec", name, "/bin/cat", "/proc/uptime").stdout.startswith(f"uptime {name} ")
    fs_runtime("delete", "--force", name)
    assert daemon.served() == []


@contextlib.contextmanager
def stopped_at(
    step: str, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, *command: str | pathlib.Path
) -> Iterator[Running]:
    """A launch that has stopped at a step, and goes on afterwards."""
    monkeypatch.setenv("SYSVISOR_RUNC_FAULT", f"stop:{step}")
    launch = runtime.start_background(*command)
    monkeypatch.delenv("SYSVISOR_RUNC_FAULT")
    wait_until(lambda: state_of(launch.process.pid) == "T", 60, "a stopped launch")
    try:
        yield launch
    finally:
        os.kill(launch.process.pid, signal.SIGCONT)


@pytest.mark.parametrize("step", FS_STEPS[1:])
def test_daemon_killed_in_a_launch(
    step: str, fs_runtime: Runtime, daemon: OwnDaemon, new_bundle: NewBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launch asks the next daemon again what the last one did not answer, and what had been done counts."""
    name = fs_runtime.id()
    bundle = new_bundle("/bin/cat", "/proc/uptime")
    with stopped_at(step, fs_runtime, monkeypatch, "run", "--bundle", bundle.path, name) as launch:
        daemon.kill()
    done = launch.wait(60)
    assert done.returncode == 0, done
    assert done.stdout.startswith(f"uptime {name} ")
    wait_until(daemon.answers, what="the next daemon")
    assert daemon.served() == []


def state_of(pid: int) -> str:
    """The letter of a process's state."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_same_id_in_two_state_roots(
    fs_runtime: Runtime, daemon: OwnDaemon, new_bundle: NewBundle, workplace: pathlib.Path
) -> None:
    """The second one is refused, and the first one goes on being served."""
    bundle = new_bundle("/bin/sleep", "1000")
    name = fs_runtime.id()
    fs_runtime("run", "--detach", "--bundle", bundle.path, name)
    other = workplace / "other"
    failed = fs_runtime.fails("--root", str(other), "run", "--bundle", bundle.path, name)
    assert "ALREADY_EXISTS" in failed.stderr or name in failed.stderr
    assert daemon.served() == [name]
    assert fs_runtime("exec", name, "/bin/cat", "/proc/uptime").stdout.startswith("uptime")
    shutil.rmtree(other)


def test_started_again_with_the_same_daemon(fs_runtime: Runtime, daemon: OwnDaemon, new_bundle: NewBundle) -> None:
    """A supervisor, which has an environment of its own, starts a container again with the daemon that it had."""
    bundle = new_bundle("/bin/sh", "-c", "[ -e /again ] || { touch /again; exit 1; }; exec sleep 1000")
    name = fs_runtime.id()
    fs_runtime("run", "--detach", "--restart", "on-failure", "--bundle", bundle.path, name)
    wait_until(lambda: fs_runtime.state(name)["supervision"]["restartCount"] == 1, 20, "the next start")
    fs_runtime.wait_status(name, "running")
    assert daemon.served() == [name]
    assert fs_runtime("exec", name, "/bin/cat", "/proc/uptime").stdout.startswith(f"uptime {name} ")
    fs_runtime("delete", "--force", name)


def test_few_descriptors(
    fs_runtime: Runtime, daemon: OwnDaemon, new_bundle: NewBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where descriptors run out, also those that come with the daemon's answer or to the child, it is told."""
    monkeypatch.delenv("SYSVISOR_FS_TREE")  # as many files as there are
    bundle = new_bundle("/bin/true")
    fs_runtime("run", "--bundle", bundle.path, fs_runtime.id())  # starts the daemon
    codes = set()
    for number in [*range(10, 30, 5), *range(30, 60)]:

        def lower(number: int = number) -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))

        result = fs_runtime("run", "--bundle", bundle.path, fs_runtime.id(), check=False, preexec_fn=lower)
        codes.add(result.returncode)
        assert result.returncode == 0 or "too many open files" in result.stderr, (number, result)
    assert codes == {0, 1}
    assert daemon.served() == []


@pytest.mark.parametrize("count", [2000, 9000])
def test_more_paths_than_a_request_holds(
    fs_runtime: Runtime, daemon: OwnDaemon, new_bundle: NewBundle, count: int
) -> None:
    """What is too long for the daemon, or for the kernel, is told at once, by what it is."""
    bundle = new_bundle("/bin/true")
    bundle.linux["maskedPaths"] = [f"/proc/{'x' * 40}{number}" for number in range(count)]
    failed = fs_runtime.fails("run", "--bundle", bundle.save().path, fs_runtime.id())
    assert "a request of more than 65536 bytes" in failed.stderr
    assert daemon.served() == []


def test_supervisor_without_grpc(
    fs_runtime: Runtime, daemon: OwnDaemon, new_bundle: NewBundle, workplace: pathlib.Path
) -> None:
    """A supervisor that can make no calls leaves them to the launch, which has the daemon's control socket."""
    fs_runtime("run", "--bundle", new_bundle("/bin/true").path, fs_runtime.id())  # starts the daemon
    edit = "    sys.path += ["
    bare = weakened(fs_runtime, workplace, "aio/libraries.py", edit, f'    sys.modules["grpc"] = None\n{edit}')
    names = [bare.id() for _ in range(2)]
    for name in names:  # the first one starts the supervisor
        result = bare("run", "--detach", "--bundle", new_bundle("/bin/sleep", "1000").path, name)
        assert result.stderr == ""
    assert status(bare)["running"] == 2
    assert sorted(daemon.served()) == sorted(names)
    for name in names:
        bare("delete", "--force", name)
    assert daemon.served() == []


def test_stopped_supervisor(
    fs_runtime: Runtime, daemon: OwnDaemon, new_bundle: NewBundle, request: pytest.FixtureRequest
) -> None:
    """A supervisor that does not answer is done without after 3 s; when it goes on, it takes nothing back."""
    bundle = new_bundle("/bin/sleep", "1000")
    first, name = fs_runtime.id(), fs_runtime.id()
    fs_runtime("run", "--detach", "--bundle", bundle.path, first)
    supervisor = status(fs_runtime)["pid"]
    request.addfinalizer(lambda: os.kill(supervisor, signal.SIGCONT) if alive(supervisor) else None)
    os.kill(supervisor, signal.SIGSTOP)
    created = fs_runtime("create", "--bundle", bundle.path, name)
    assert "does not answer within 3 s" in created.stderr
    assert daemon.served() == [first, name]
    os.kill(supervisor, signal.SIGCONT)
    assert status(fs_runtime)["pid"] == supervisor  # so it has seen the requests that were waiting, and their end
    fs_runtime("start", name)
    assert fs_runtime("exec", name, "/bin/cat", "/proc/uptime").stdout.startswith(f"uptime {name} ")
    fs_runtime("delete", "--force", name)
    assert daemon.served() == [first]


# ---- daemons of another make


class Foreign:
    """A daemon of another make, and what it was called with."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.tree = directory / "foreign"
        self.log = directory / "calls"
        self.address = f"unix:{directory}/foreign.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, service: str, *methods: str) -> None:
        script = SOURCE / "tests/support/foreign_fs.py"
        argv = [sys.executable, str(script), self.address, str(self.log), str(self.tree), service, *methods]
        ready = self.log.with_name("ready")
        ready.unlink(missing_ok=True)
        self.log.touch()
        self._process = subprocess.Popen(argv)
        wait_until(ready.exists, 30, "a foreign daemon")

    def fill(self, below: str) -> None:
        for path in ("proc/uptime", "proc/cpuinfo", "proc/sys/mark"):
            file = self.tree / below / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"foreign {path}\n")
        (self.tree / below / "proc/sys/fs/binfmt_misc").mkdir(parents=True)

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)


@pytest.fixture
def foreign(workplace: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Foreign]:
    """A daemon of another make, which launches are pointed to."""
    foreign = Foreign(workplace)
    monkeypatch.setenv("SYSVISOR_FS_ADDRESS", foreign.address)
    monkeypatch.setenv("SYSVISOR_FS_TREE", "tests.support.fs_served")
    monkeypatch.setenv("SYSVISOR_FS_MOUNTPOINT", str(foreign.tree))
    yield foreign
    foreign.stop()


@pytest.fixture
def foreign_runtime(workplace: pathlib.Path, foreign: Foreign) -> Iterator[Runtime]:
    """`sysvisor-runc` as it is."""
    runtime = Runtime(workplace)
    yield runtime
    runtime.clean()
    foreign.stop()
    assert leaks.find(runtime) == []


ERA = ("ContainerRegistration", "ContainerUpdate", "ContainerUnregistration")
HEAD = ("GetMountpoint", "ContainerPreRegistration", *ERA)


def test_daemon_of_2019(foreign_runtime: Runtime, foreign: Foreign, new_bundle: NewBundle) -> None:
    """Three calls, under the service's first name, and its one tree for everybody."""
    foreign.fill("")
    foreign.start("sysvisor_protobuf.ContainerStateChannel", *ERA)
    name = foreign_runtime.id()
    bundle = new_bundle("/bin/sh", "-c", "cat /proc/uptime /proc/cpuinfo /proc/sys/mark")
    shown = foreign_runtime("run", "--bundle", bundle.path, name).stdout
    assert shown == "foreign proc/uptime\nforeign proc/cpuinfo\nforeign proc/sys/mark\n"
    assert [call.split()[0] for call in foreign.calls()] == list(ERA)
    assert all(f"'Id': '{name}'" in call for call in foreign.calls())
    assert re.search(r"'InitPid': \d+, 'UidFirst': \d+", foreign.calls()[0])
    assert "'Ctime': 1" in foreign.calls()[1]


def test_other_daemon_of_today(foreign_runtime: Runtime, foreign: Foreign, new_bundle: NewBundle) -> None:
    """Five calls in their order, under the service's last name, and a tree for each container."""
    name = foreign_runtime.id()
    foreign.fill(name)
    foreign.start("protobuf.sysboxStateChannel", *HEAD)
    bundle = new_bundle("/bin/cat", "/proc/uptime")
    assert foreign_runtime("run", "--bundle", bundle.path, name).stdout == "foreign proc/uptime\n"
    assert [call.split()[0] for call in foreign.calls()] == list(HEAD)


@pytest.mark.parametrize("method", HEAD[1:4])
def test_refused_call(method: str, foreign_runtime: Runtime, foreign: Foreign, bundle: Bundle) -> None:
    """A call that fails fails the launch in one line with the daemon's reason, and is followed by an unregistration."""
    name = foreign_runtime.id()
    foreign.fill(name)
    foreign.start("protobuf.sysvisorStateChannel", *(f"{one}=INTERNAL" if one == method else one for one in HEAD))
    failed = foreign_runtime.fails("run", "--bundle", bundle.path, name)
    (line,) = failed.stderr.splitlines()
    assert f"{method} was told to fail" in line
    assert foreign.calls()[-1].startswith("ContainerUnregistration")
    assert foreign_runtime.ids() == []


def agents(command: int) -> list[int]:
    """The forks of a stopped launch that make its calls: the container's init is in a pid namespace of its own."""
    children = pathlib.Path(f"/proc/{command}/task/{command}/children").read_text().split()
    return [int(child) for child in children if looks(int(child)) == looks(command)]


def looks(pid: int) -> tuple[bytes, str]:
    """Command line and pid namespace of a process."""
    return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes(), os.readlink(f"/proc/{pid}/ns/pid")


def test_killed_agent_leaves_no_registration(
    foreign_runtime: Runtime, foreign: Foreign, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who makes the calls may be killed, by the OOM killer say: the launch fails, and its id is free again."""
    name = foreign_runtime.id()
    foreign.fill(name)
    foreign.start("protobuf.sysvisorStateChannel", *HEAD)
    with stopped_at("fs-trees", foreign_runtime, monkeypatch, "run", "--bundle", bundle.path, name) as launch:
        [agent] = agents(launch.process.pid)
        os.kill(agent, signal.SIGKILL)
    failed = launch.wait(60)
    assert failed.returncode == 1
    assert "whoever makes its calls has ended unexpectedly" in failed.stderr
    assert foreign.calls()[-1].startswith("ContainerUnregistration")
    assert foreign_runtime.ids() == []


@pytest.mark.parametrize("step", ["fs-prepare", "fs-trees", "fs-register"])
def test_killed_launch_is_unregistered(
    step: str, foreign_runtime: Runtime, foreign: Foreign, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon of another make cannot see that a launch was killed: its agent tells it."""
    name = foreign_runtime.id()
    foreign.fill(name)
    foreign.start("protobuf.sysvisorStateChannel", *HEAD)
    monkeypatch.setenv("SYSVISOR_RUNC_FAULT", f"kill:{step}")
    foreign_runtime("run", "--bundle", bundle.path, name, check=False)
    monkeypatch.delenv("SYSVISOR_RUNC_FAULT")
    wait_until(lambda: foreign.calls()[-1:] != [] and foreign.calls()[-1].startswith("ContainerUnreg"), 20, "its call")
    foreign_runtime("delete", "--force", name)


def test_daemon_that_hangs(foreign_runtime: Runtime, foreign: Foreign, bundle: Bundle) -> None:
    """The deadline is kept, and the reason told."""
    name = foreign_runtime.id()
    foreign.fill(name)
    methods = (f"{one}=hang" if one == "ContainerUpdate" else one for one in HEAD)
    foreign.start("protobuf.sysvisorStateChannel", *methods)
    failed = foreign_runtime.fails("run", "--bundle", bundle.path, name)
    assert "ContainerUpdate: no answer within 3 s" in failed.stderr


def test_delete_survives_the_daemon(foreign_runtime: Runtime, foreign: Foreign, new_bundle: NewBundle) -> None:
    """A container can be deleted when its daemon is gone; a warning says what could not be done."""
    name = foreign_runtime.id()
    foreign.fill(name)
    foreign.start("protobuf.sysvisorStateChannel", *HEAD)
    foreign_runtime("create", "--bundle", new_bundle("/bin/sleep", "1000").path, name)
    foreign.stop()
    deleted = foreign_runtime("delete", "--force", name)
    assert "warning" in deleted.stderr
    assert foreign_runtime.ids() == []


def test_supervisor_insists(foreign_runtime: Runtime, foreign: Foreign, new_bundle: NewBundle) -> None:
    """Where a supervisor makes the calls, an unregistration that failed is made again once the daemon is back."""
    name = foreign_runtime.id()
    foreign.fill(name)
    foreign.start("protobuf.sysvisorStateChannel", *HEAD)
    foreign_runtime("run", "--detach", "--bundle", new_bundle("/bin/sleep", "1000").path, name)
    foreign.stop()
    assert foreign_runtime("delete", "--force", name).stderr == ""
    assert "Unregistration" not in foreign.calls()[-1]
    foreign.start("protobuf.sysvisorStateChannel", *HEAD)
    wait_until(lambda: foreign.calls()[-1].startswith("ContainerUnregistration"), 60, "another attempt")
    wait_until(lambda: told(foreign_runtime, name) == [{"action": "unregister"}], 15, "an event")


def told(runtime: Runtime, name: str) -> list[dict[str, str]]:
    """What events say of sysvisor-fs and a container."""
    return [event["data"] for event in events(runtime) if (event["type"], event["id"]) == ("fs", name)]


def test_events_of_a_daemon(foreign_runtime: Runtime, foreign: Foreign, new_bundle: NewBundle) -> None:
    """Whom it serves, and no longer, is told where a supervisor makes the calls; and what went wrong."""
    bundle = new_bundle("/bin/sleep", "1000")
    foreign_runtime("--no-sysvisor-fs", "run", "--detach", "--bundle", bundle.path, foreign_runtime.id())
    status(foreign_runtime)
    name, refused = foreign_runtime.id(), foreign_runtime.id()
    foreign.fill(name)
    foreign.start("protobuf.sysvisorStateChannel", *HEAD)
    foreign_runtime("create", "--bundle", bundle.path, name)
    assert told(foreign_runtime, name) == [{"action": "register"}]
    foreign_runtime("delete", "--force", name)
    assert told(foreign_runtime, name) == [{"action": "register"}, {"action": "unregister"}]
    foreign.stop()
    foreign.start("protobuf.sysvisorStateChannel", *(f"{one}=INTERNAL" if one == HEAD[1] else one for one in HEAD))
    foreign_runtime.fails("create", "--bundle", bundle.path, refused)
    assert told(foreign_runtime, refused)[0]["action"] == "failed"
    assert f"{HEAD[1]} was told to fail" in told(foreign_runtime, refused)[0]["error"]

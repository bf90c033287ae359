"""A command that fails at any of its steps leaves nothing behind; a killed one nothing that `delete -f` leaves."""

import json
import os
import pathlib
import signal
from collections.abc import Callable, Iterator

import pytest

from sysvisor_runc.launch.steps import STEPS
from tests.support import leaks
from tests.support.bundle import Bundle, make_bundle
from tests.support.listener import Listener
from tests.support.runtime import Result, Runtime, wait_until

HOOKS = ("createRuntime", "createContainer", "startContainer", "poststart", "poststop")
# Reached only by a container with a terminal.
WITH_TERMINAL = {"console"}
# Reached only by a system container.
WITH_IDS = {"ids"}
# With `create` these belong to `start`.
OF_START = {"start", "poststart"}
VERBS = ("run", "run -d", "create")


@pytest.fixture(scope="module")
def busy_bundle(tmp_path_factory: pytest.TempPathFactory, rootfs_template: pathlib.Path) -> Bundle:
    """A container that takes all there is to take: limits, hooks of every kind; its program runs until it is ended."""
    directory = tmp_path_factory.mktemp("faults")
    for path in (directory, directory.parent):
        path.chmod(0o755)
    bundle = make_bundle(directory / "bundle", rootfs_template, ("/bin/sleep", "1000"))
    bundle.linux["resources"] = {"memory": {"limit": 256 << 20}, "pids": {"limit": 100}}
    bundle.config["hooks"] = {kind: [{"path": "/bin/true"}] for kind in HOOKS}
    return bundle.save()


def faulty(fault: str) -> dict[str, str]:
    """The environment that injects `fault`."""
    return {**os.environ, "SYSVISOR_RUNC_FAULT": fault}


def launch(runtime: Runtime, verb: str, name: str, bundle: Bundle, fault: str, *flags: str) -> Result:
    """Launch a container with a fault on the way; the result of the command that had to fail."""
    command, *detach = verb.split()
    env = faulty(fault)
    pid_file = str(runtime.directory / f"{name}.pid")
    arguments = [command, *detach, "--bundle", str(bundle.path), "--pid-file", pid_file, *flags, name]
    if verb == "create" and fault.partition(":")[2] in OF_START:
        runtime(*arguments)
        return runtime("start", name, check=False, env=env)
    return runtime(*arguments, check=False, env=env)


def steps(runtime: Runtime) -> list[str]:
    """The steps that a launch without a terminal goes through."""
    left_out = WITH_TERMINAL if "--no-syscont" not in runtime.flags else WITH_TERMINAL | WITH_IDS
    return [step for step in STEPS if step not in left_out]


def check_told(result: Result, step: str) -> None:
    assert result.returncode == 1, repr(result)
    lines = [line for line in result.stderr.splitlines() if "warning" not in line]
    assert len(lines) == 1, repr(result)
    assert f"fault injected at step {step!r}" in lines[0], repr(result)


@pytest.mark.parametrize("verb", VERBS)
def test_a_launch_that_fails_leaves_nothing(any_runtime: Runtime, busy_bundle: Bundle, verb: str) -> None:
    """Whatever the step: no state, cgroup, mount, process, id range or pid file; one line tells which step it was."""
    runtime = any_runtime
    for step in steps(runtime):
        name = runtime.id()
        result = launch(runtime, verb, name, busy_bundle, f"fail:{step}")
        check_told(result, step)
        if verb == "create" and step in OF_START:
            # `start` fails: the container was there before, and stays.
            assert runtime.state(name)["status"] == ("created" if step == "start" else "running")
            runtime("delete", "--force", name)
        else:
            assert not (runtime.directory / f"{name}.pid").exists(), step
        assert leaks.find(runtime) == [], step


@pytest.mark.parametrize("verb", VERBS)
def test_what_a_killed_launch_leaves_can_be_deleted(any_runtime: Runtime, busy_bundle: Bundle, verb: str) -> None:
    """SIGKILL at any step: the container can be looked at, and after `delete --force` nothing is left of it."""
    runtime = any_runtime
    for step in steps(runtime):
        name = runtime.id()
        result = launch(runtime, verb, name, busy_bundle, f"kill:{step}")
        assert result.returncode == -signal.SIGKILL, (step, repr(result))
        check_deletable(runtime, name, step)


def check_deletable(runtime: Runtime, name: str, what: str) -> None:
    """Looking at it is fine, and `delete --force` leaves nothing, at once but for what ends by itself."""
    assert "Traceback" not in runtime("state", name, check=False).stderr, what
    assert "Traceback" not in runtime("list", check=False).stderr, what
    deleted = runtime("delete", "--force", name)
    assert deleted.stderr == "", (what, repr(deleted))
    wait_until(lambda: leaks.find(runtime) == [], 5, f"nothing left after {what}: {leaks.find(runtime)}")


@pytest.fixture
def listener(workplace: pathlib.Path) -> Iterator[Listener]:
    """Somebody who takes terminals at a socket."""
    with Listener(workplace / "console.sock") as listener:
        yield listener


@pytest.mark.parametrize("step", ["child-console", "console", "child-pivot", "pid-file"])
@pytest.mark.parametrize("verb", ["run -d", "create"])
def test_with_a_terminal(
    any_runtime: Runtime, new_bundle: Callable[..., Bundle], listener: Listener, verb: str, step: str
) -> None:
    """A terminal on its way changes nothing about it."""
    runtime, bundle = any_runtime, new_bundle("/bin/sleep", "1000")
    bundle.process["terminal"] = True
    bundle.save()
    flags = ("--console-socket", str(listener.path))
    name = runtime.id()
    check_told(launch(runtime, verb, name, bundle, f"fail:{step}", *flags), step)
    assert leaks.find(runtime) == []
    assert launch(runtime, verb, name, bundle, f"kill:{step}", *flags).returncode == -signal.SIGKILL
    check_deletable(runtime, name, step)


@pytest.mark.parametrize("step", ["start", "started", "poststart"])
def test_a_killed_start(any_runtime: Runtime, busy_bundle: Bundle, step: str) -> None:
    """The container is created or running, never in between, and can go on from there."""
    runtime, name = any_runtime, any_runtime.id()
    runtime("create", "--bundle", busy_bundle.path, name)
    assert runtime("start", name, check=False, env=faulty(f"kill:{step}")).returncode == -signal.SIGKILL
    if step == "start":
        assert runtime.state(name)["status"] == "created"
        runtime("start", name)
    assert runtime.state(name)["status"] == "running"
    check_deletable(runtime, name, step)


@pytest.mark.parametrize("step", ["exec-clone", "exec-joined"])
def test_a_failed_or_killed_exec(any_runtime: Runtime, busy_bundle: Bundle, step: str) -> None:
    """A failed one leaves no process in the container; a killed one hinders neither the next nor `delete`."""
    runtime, name = any_runtime, any_runtime.id()
    runtime("run", "-d", "--bundle", busy_bundle.path, name)
    before = runtime("ps", "-f", "json", name).json
    failed = runtime("exec", name, "/bin/sleep", "1000", check=False, env=faulty(f"fail:{step}"))
    assert failed.returncode == 255
    assert runtime("ps", "-f", "json", name).json == before
    killed = runtime("exec", name, "/bin/sleep", "1000", check=False, env=faulty(f"kill:{step}"))
    assert killed.returncode == -signal.SIGKILL
    assert runtime("exec", name, "/bin/echo", "here").stdout == "here\n"
    check_deletable(runtime, name, step)


def test_an_exec_whose_container_goes(any_runtime: Runtime, bundle: Bundle) -> None:
    """One whose container is deleted just before it joins says that it is."""
    runtime, name = any_runtime, any_runtime.id()
    runtime("run", "-d", "--bundle", bundle.run("/bin/sleep", "1000").path, name)
    joining = runtime.start_background("exec", name, "/bin/true", env=faulty("stop:exec-clone"))
    os.waitid(os.P_PID, joining.process.pid, os.WSTOPPED | os.WNOWAIT)
    runtime("delete", "--force", name)
    joining.process.send_signal(signal.SIGCONT)
    result = joining.wait()
    assert result.returncode == 255
    assert "the container has ended" in result.stderr or "unable to start container process" in result.stderr
    assert "unexpected failure" not in result.stderr


def test_a_failed_exec_leaves_no_process(any_runtime: Runtime, busy_bundle: Bundle) -> None:
    """Not either where the program runs already when the command finds that it cannot tell its pid."""
    runtime, name = any_runtime, any_runtime.id()
    runtime("run", "-d", "--bundle", busy_bundle.path, name)
    before = runtime("ps", "-f", "json", name).json
    runtime.fails("exec", "--pid-file", "/nonexistent/pid", name, "/bin/sleep", "1000")
    runtime.fails("exec", "--pidfd-socket", "/nonexistent/socket", name, "/bin/sleep", "1000")
    assert runtime("ps", "-f", "json", name).json == before


def test_init_killed_before_its_start(any_runtime: Runtime, bundle: Bundle) -> None:
    """A `run` whose init somebody kills before it is let go says so."""
    runtime, name = any_runtime, any_runtime.id()
    running = runtime.start_background("run", "--bundle", bundle.path, name, env=faulty("stop:start"))
    os.waitid(os.P_PID, running.process.pid, os.WSTOPPED | os.WNOWAIT)
    runtime("kill", name, "KILL")
    runtime.wait_status(name, "stopped")
    running.process.send_signal(signal.SIGCONT)
    result = running.wait()
    assert result.returncode == 1
    assert "its init was killed before it was started" in result.stderr


@pytest.mark.parametrize("how", ["fail", "kill"])
@pytest.mark.parametrize("command", ["delete", "delete --force", "run"])
def test_an_interrupted_delete_can_be_repeated(
    any_runtime: Runtime, busy_bundle: Bundle, new_bundle: Callable[..., Bundle], command: str, how: str
) -> None:
    """Also where it is the one that ends a `run`."""
    runtime = any_runtime
    for step in ("delete-init", "delete-cgroup", "delete-ids", "delete-poststop", "delete-state"):
        name = runtime.id()
        fault = faulty(f"{how}:{step}")
        if command == "run":
            if step == "delete-init":
                continue
            result = runtime("run", "--bundle", new_bundle().path, name, check=False, env=fault)
        else:
            runtime("create", "--bundle", busy_bundle.path, name)
            result = runtime(*command.split(), name, check=False, env=fault)
        assert result.returncode == (-signal.SIGKILL if how == "kill" else 1), (step, repr(result))
        if how == "kill" or step != "delete-state":
            assert name in runtime.ids(), step
        check_deletable(runtime, name, step)


@pytest.mark.parametrize("how", ["fail", "kill"])
def test_an_interrupted_update_leaves_the_container_as_it_was(
    any_runtime: Runtime, busy_bundle: Bundle, how: str
) -> None:
    """Neither half of the limits nor a record that tells of others than there are."""
    runtime, name = any_runtime, any_runtime.id()
    runtime("run", "-d", "--bundle", busy_bundle.path, name)
    for step in ("update-apply", "update-save"):
        result = runtime("update", "--pids-limit", "77", name, check=False, env=faulty(f"{how}:{step}"))
        assert result.returncode == (-signal.SIGKILL if how == "kill" else 1), repr(result)
        record = json.loads((runtime.root / name / "state.json").read_text())
        assert record["spec"]["linux"]["resources"]["pids"]["limit"] == 100
    runtime("update", "--pids-limit", "78", name)
    assert runtime.state(name)["status"] == "running"

"""Signals to a command reach the container or undo the launch; and what becomes of the caller's own descriptors."""

import os
import pathlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

from tests.support import leaks
from tests.support.bundle import Bundle
from tests.support.runtime import Running, Runtime, wait_until

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGQUIT: 131}
# Exits with 42 on a signal; says when it is ready for one.
PATIENT = "trap 'exit 42' TERM INT HUP QUIT USR1; echo ready; while :; do sleep 0.05; done"


def says(running: Running, text: str) -> None:
    """Wait until the command has printed `text`."""
    wait_until(lambda: text in running.stdout, what=f"{text!r} on standard output")


@pytest.mark.parametrize("number", [*ENDING, signal.SIGQUIT, signal.SIGUSR1])
def test_a_signal_to_run_reaches_the_container(any_runtime: Runtime, bundle: Bundle, number: signal.Signals) -> None:
    """And the exit code is what the container makes of it."""
    run = any_runtime.start_background("run", "--bundle", bundle.sh(PATIENT).path, any_runtime.id())
    says(run, "ready")
    run.process.send_signal(number)
    assert run.wait().returncode == 42
    assert leaks.find(any_runtime) == []


def test_interrupt_from_the_terminal(any_runtime: Runtime, bundle: Bundle) -> None:
    """Ctrl-C goes to the whole process group of the command, which the container is not in: it gets it once."""
    script = "trap 'echo got; n=1$n' INT; echo ready; while [ \"$n\" = '' ]; do sleep 0.05; done; sleep 0.2; exit $n"
    run = any_runtime.start_background(
        "run", "--bundle", bundle.sh(script).path, any_runtime.id(), start_new_session=True
    )
    says(run, "ready")
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.wait().returncode == 1


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_that_kills_the_program(plain_runtime: Runtime, bundle: Bundle, number: signal.Signals) -> None:
    """The exit code is a shell's. Without a pid namespace the program is no init, so that nothing protects it."""
    bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != "pid"]
    run = plain_runtime.start_background(
        "run", "--bundle", bundle.sh("echo ready; exec sleep 100").path, plain_runtime.id()
    )
    says(run, "ready")
    run.process.send_signal(number)
    assert run.wait().returncode == CODES[number]


@pytest.mark.parametrize("number", [*ENDING, signal.SIGQUIT])
def test_a_signal_to_exec_reaches_the_process(any_runtime: Runtime, bundle: Bundle, number: signal.Signals) -> None:
    """And nobody else."""
    runtime, name = any_runtime, any_runtime.id()
    runtime("run", "-d", "--bundle", bundle.run("/bin/sleep", "100").path, name)
    process = runtime.start_background("exec", name, "/bin/sh", "-c", PATIENT)
    says(process, "ready")
    process.process.send_signal(number)
    assert process.wait().returncode == 42
    assert runtime.state(name)["status"] == "running"


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer", "startContainer"])
@pytest.mark.parametrize("number", [*ENDING, signal.SIGQUIT])
def test_a_signal_during_the_launch_undoes_it(
    any_runtime: Runtime, bundle: Bundle, number: signal.Signals, kind: str
) -> None:
    """Before the program runs: the exit code tells the signal, the hook that the launch waits for ends too."""
    runtime = any_runtime
    bundle.config["hooks"] = {kind: [{"path": "/bin/sleep", "args": ["sleep", "1000"]}]}
    bundle.save()
    commands = [["run"], ["run", "-d"], ["create"]]
    for command in commands:
        name = runtime.id()
        if command == ["create"] and kind == "startContainer":
            runtime("create", "--bundle", bundle.path, name)
            launch = runtime.start_background("start", name)
        else:
            launch = runtime.start_background(*command, "--bundle", bundle.path, name)
        wait_until(lambda: sleeping(runtime), what="the hook")
        for _ in range(3):  # impatience changes nothing
            launch.process.send_signal(number)
        result = launch.wait()
        assert result.returncode == CODES[number], repr(result)
        lines = [line for line in result.stderr.splitlines() if "warning" not in line]
        assert len(lines) == 1, repr(result)
        assert f"interrupted by {number.name}" in lines[0], repr(result)
        assert not sleeping(runtime)
        if "start" in launch.args:
            assert runtime.state(name)["status"] == "stopped"
            runtime("delete", name)
        assert leaks.find(runtime) == []


def sleeping(runtime: Runtime) -> bool:
    """Whether a hook that sleeps was started below a command of this test."""
    commands = [int(line.split()[0]) for line in leaks.processes(runtime.token, runtime.directory)]
    for pid in commands:
        try:
            children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if any(b"sleep\x001000" in pathlib.Path(f"/proc/{c}/cmdline").read_bytes() for c in [*children, pid]):
                return True
        except (FileNotFoundError, ProcessLookupError):
            continue
    return False


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_at_any_moment(any_runtime: Runtime, bundle: Bundle, number: signal.Signals) -> None:
    """Either the launch is undone, or the container ran to its end; there is nothing in between."""
    runtime = any_runtime
    bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/true"}]}
    bundle.run("/bin/sleep", "0.1")
    begun = time.monotonic()
    runtime("run", "--bundle", bundle.path, runtime.id())
    took = time.monotonic() - begun
    codes = set()
    for moment in range(12):  # from the first one, which is before the end for sure
        name = runtime.id()
        launch = runtime.start_background("run", "--bundle", bundle.path, name)
        if number == signal.SIGINT:
            # The interpreter's own start is out of our hands, and may have words for it.
            wait_until(lambda: (runtime.root / name).exists() or launch.process.poll() is not None)  # noqa: B023
        time.sleep(moment / 10 * took)
        launch.process.send_signal(number)
        result = launch.wait()
        # Negative: it was killed before it had begun to handle signals.
        assert result.returncode in (0, CODES[number], -number), repr(result)
        assert "Traceback" not in result.stderr, repr(result)
        codes.add(result.returncode)
        assert leaks.find(runtime) == []
    assert codes != {0}


def test_a_killed_run_leaves_a_container_that_can_be_deleted(any_runtime: Runtime, bundle: Bundle) -> None:
    """SIGKILL cannot be passed on: the container goes on and is there for all commands."""
    runtime, name = any_runtime, any_runtime.id()
    run = runtime.start_background("run", "--bundle", bundle.sh(PATIENT).path, name)
    says(run, "ready")
    run.process.kill()
    assert run.wait().returncode == -signal.SIGKILL
    assert runtime.state(name)["status"] == "running"
    assert runtime("exec", name, "/bin/echo", "here").stdout == "here\n"
    runtime("delete", "--force", name)
    assert leaks.find(runtime) == []


def test_nohup(any_runtime: Runtime, bundle: Bundle) -> None:
    """What the caller ignores means nothing to the container either."""
    argv = any_runtime.argv("run", "--bundle", bundle.sh(PATIENT).path, any_runtime.id())
    with open(any_runtime.directory / "nohup.out", "w+b") as output:
        process = subprocess.Popen(["nohup", *argv], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        wait_until(lambda: b"ready" in pathlib.Path(output.name).read_bytes())
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.terminate()
        assert process.wait(10) == 42


def test_nohup_during_the_launch(any_runtime: Runtime, bundle: Bundle) -> None:
    """The launch goes on."""
    bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1"]}]}
    name = any_runtime.id()
    argv = any_runtime.argv("create", "--bundle", bundle.save().path, name)
    process = subprocess.Popen(
        ["nohup", *argv], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until((any_runtime.root / name / "state.json.new").exists)
    process.send_signal(signal.SIGHUP)
    assert process.wait(10) == 0
    assert any_runtime.state(name)["status"] == "created"


def test_a_caller_that_ignores_its_children(any_runtime: Runtime, bundle: Bundle) -> None:
    """An ignored SIGCHLD is inherited; exit codes of container and hooks are not lost to it."""

    def ignore_children() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    bundle.config["hooks"] = {"poststop": [{"path": "/bin/false"}]}
    result = any_runtime(
        "run", "--bundle", bundle.sh("exit 9").path, any_runtime.id(), check=False, preexec_fn=ignore_children
    )
    assert result.returncode == 9, repr(result)
    assert "poststop hook #0: exit status 1" in result.stderr


def test_a_caller_that_blocks_signals(any_runtime: Runtime, bundle: Bundle) -> None:
    """A blocked mask is inherited too; neither the command nor the program has to live with it."""

    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)

    run = any_runtime.start_background("run", "--bundle", bundle.sh(PATIENT).path, any_runtime.id(), preexec_fn=block)
    says(run, "ready")
    run.process.terminate()
    assert run.wait().returncode == 42


def closed_run(closed: str, argv: list[str]) -> int:
    """The exit code of a command that is started with some descriptors closed and /dev/null for the others."""
    null = subprocess.DEVNULL
    shell = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *argv]
    return subprocess.run(shell, stdin=null, stdout=null, stderr=null, timeout=30).returncode


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_descriptors(any_runtime: Runtime, bundle: Bundle, closed: str) -> None:
    """Nothing of ours lands there: the program finds /dev/null where its caller had nothing."""
    runtime, name = any_runtime, any_runtime.id()
    bundle.run("/bin/sleep", "1000")
    run = threading.Thread(
        target=lambda: codes.append(closed_run(closed, runtime.argv("run", "--bundle", bundle.path, name)))
    )
    codes: list[int] = []
    run.start()
    wait_until((runtime.root / name / "state.json").exists)
    pid = runtime.wait_status(name, "running")["pid"]
    descriptors = pathlib.Path(f"/proc/{pid}/fd")
    wait_until(lambda: b"sleep" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes())
    assert {path.name: os.readlink(path) for path in descriptors.iterdir()} == dict.fromkeys("012", "/dev/null")
    runtime("kill", name, "KILL")
    run.join()
    assert codes == [137]
    for command in (["create", "--bundle", str(bundle.path), name], ["state", name], ["list"], ["start", name]):
        assert closed_run(closed, runtime.argv(*command)) == 0, command


def test_output_that_nobody_reads(any_runtime: Runtime, bundle: Bundle) -> None:
    """The program gets SIGPIPE, as it would without us; a command of ours ends as if it had got it."""
    runtime, name = any_runtime, any_runtime.id()
    reader, writer = os.pipe()
    os.close(reader)
    bundle.sh("trap '' PIPE; echo lost 2>/dev/null; exit 6")
    assert runtime("run", "--bundle", bundle.path, name, check=False, stdout=writer).returncode == 6
    runtime("create", "--bundle", bundle.path, name)
    for command in (["state", name], ["list"]):
        result = runtime(*command, check=False, stdout=writer)
        assert (result.returncode, result.stderr) == (141, ""), repr(result)
    os.close(writer)
    with open("/dev/full", "wb") as full:
        result = runtime("list", check=False, stdout=full)
    assert result.returncode == 1
    assert result.stderr == "sysvisor-runc: write to standard output: no space left on device\n"


def test_a_program_gets_the_default_dispositions(any_runtime: Runtime, bundle: Bundle) -> None:
    """Neither what our caller ignores nor what our interpreter does is passed on: no signal is ignored or blocked."""

    def ignore() -> None:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR2,))

    bundle.run("/bin/grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")
    result = any_runtime("run", "--bundle", bundle.path, any_runtime.id(), preexec_fn=ignore)
    assert result.stdout.split() == ["SigBlk:", "0" * 16, "SigIgn:", "0" * 16]


def test_hooks_are_not_left_by_a_killed_command(any_runtime: Runtime, new_bundle: Callable[..., Bundle]) -> None:
    """A hook that hangs ends with the command that waits for it."""
    runtime, bundle, name = any_runtime, new_bundle(), any_runtime.id()
    hook = runtime.directory / "hook"
    os.mkfifo(runtime.directory / "fifo")
    hook.write_text(f"#!/bin/sh\nread line <{runtime.directory}/fifo\n")
    hook.chmod(0o755)
    bundle.config["hooks"] = {"createRuntime": [{"path": str(hook)}]}
    launch = runtime.start_background("create", "--bundle", bundle.save().path, name)
    wait_until(lambda: any(str(hook) in line for line in leaks.processes(runtime.token, runtime.directory)))
    launch.process.kill()
    launch.wait()
    runtime("delete", "--force", name)
    wait_until(lambda: leaks.find(runtime) == [], 5)

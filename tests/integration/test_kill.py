"""`kill`: which process gets which signal, and who never does."""

import signal
import subprocess

import pytest

from sysvisor_runc.cli.kill import parse_signal
from sysvisor_runc.errors import UsageError
from sysvisor_runc.state.process import start_time
from tests.support.handmade import container
from tests.support.runtime import Runtime

SHARED_PIDS: dict[str, object] = {"linux": {"namespaces": [{"type": "pid", "path": "/proc/1/ns/pid"}]}}
HOST_PIDS: dict[str, object] = {"linux": {"namespaces": []}}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("TERM", signal.SIGTERM), ("SIGTERM", signal.SIGTERM), ("sigterm", signal.SIGTERM), ("Usr1", signal.SIGUSR1),
        ("9", 9), ("0", 0), ("37", 37), ("64", 64), ("RTMIN+3", signal.SIGRTMIN + 3),
        ("SIGRTMAX-1", signal.SIGRTMAX - 1), ("RTMIN", signal.SIGRTMIN), ("IO", signal.SIGIO), ("STKFLT", 16),
    ],
)  # fmt: skip
def test_signals_by_name_and_number(text: str, number: int) -> None:
    """In every way in which runc takes them, and systemd's realtime signals."""
    assert parse_signal(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SIG",
        "65",
        "-1",
        "9" * 5000,
        "_BLOCK",
        "SIG_IGN",
        "NOPE",
        "RTMIN+31",
        "RTMIN-1",
        "RTMAX+1",
        "TERM ",
        "\u0663",
    ],
)
def test_what_is_no_signal(text: str) -> None:
    """It is refused by name, before anything happens."""
    with pytest.raises(UsageError, match="unknown signal"):
        parse_signal(text)


@pytest.mark.parametrize(
    ("arguments", "code"), [((), signal.SIGTERM), (("KILL",), signal.SIGKILL), (("2",), signal.SIGINT)]
)
def test_init_gets_the_signal(runtime: Runtime, arguments: tuple[str, ...], code: int) -> None:
    """SIGTERM unless told otherwise."""
    with container(runtime) as one:
        runtime("kill", one.id, *arguments)
        assert one.init.wait(10) == -code


def test_signal_0_only_asks(runtime: Runtime) -> None:
    """It succeeds while init lives, and harms nobody."""
    with container(runtime) as one:
        runtime("kill", one.id, "0")
        assert one.init.poll() is None


def test_a_stopped_container_cannot_be_signalled(runtime: Runtime) -> None:
    """In runc's words, zombie or reaped; with --all it is no error."""
    with container(runtime) as one:
        one.init.kill()
        runtime.wait_status(one.id, "stopped")
        for signum in ("0", "KILL"):
            assert "container not running" in runtime.fails("kill", one.id, signum).stderr
        one.init.wait(10)
        assert "container not running" in runtime.fails("kill", one.id, "0").stderr
        runtime("kill", "-a", one.id, "0")
        runtime("kill", "--all", one.id, "KILL")


def test_an_unknown_container_is_an_error_even_with_all(runtime: Runtime) -> None:
    """--all forgives only that the container has stopped."""
    assert "container does not exist" in runtime.fails("kill", "-a", runtime.id()).stderr


def test_a_process_that_has_the_pid_by_now_is_spared(runtime: Runtime) -> None:
    """The recorded pid without the recorded start time is somebody else."""
    with container(runtime) as one, subprocess.Popen(["/bin/sleep", "1000"]) as bystander:
        one.save(initPid=bystander.pid, initStart=start_time(bystander.pid) + 1)
        for signum in ("KILL", "TERM"):
            assert "container not running" in runtime.fails("kill", one.id, signum).stderr
        assert bystander.poll() is None
        bystander.kill()


@pytest.mark.parametrize("spec", [SHARED_PIDS, HOST_PIDS])
def test_without_pids_of_its_own_everything_is_killed(runtime: Runtime, spec: dict[str, object]) -> None:
    """The kernel ends the others with init only in a pid namespace of its own; even with init gone they are ended."""
    with container(runtime, spec) as one:
        second = one.spawn()
        runtime("kill", one.id, "KILL")
        assert (one.init.wait(10), second.wait(10)) == (-signal.SIGKILL, -signal.SIGKILL)
        third = one.spawn()
        assert runtime.state(one.id)["status"] == "stopped"
        runtime("kill", one.id, "KILL")
        assert third.wait(10) == -signal.SIGKILL
        one.manager.remove()
        assert "container not running" in runtime.fails("kill", one.id, "KILL").stderr


def test_other_signals_go_to_init_alone(runtime: Runtime) -> None:
    """Whatever the namespaces."""
    with container(runtime, HOST_PIDS) as one:
        second = one.spawn()
        runtime("kill", one.id, "TERM")
        assert one.init.wait(10) == -signal.SIGTERM
        assert second.poll() is None


def test_a_busy_container_can_be_killed(runtime: Runtime) -> None:
    """The lock that a stuck command holds is none for kill."""
    with container(runtime) as one, one.entry.lock():
        runtime("kill", one.id, "KILL")
        assert one.init.wait(10) == -signal.SIGKILL

"""`pause` and `resume`: processes really stand still, and the status follows what the freezer says."""

import os
import pathlib
import signal
import subprocess

import pytest

from tests.support.handmade import Handmade, container
from tests.support.runtime import Runtime


def counter(one: Handmade, file: pathlib.Path) -> "subprocess.Popen[bytes]":
    """A process of the container that appends to `file` as fast as it can."""
    return one.spawn("/bin/sh", "-c", f"while :; do echo >> {file}; done")


def test_processes_stand_still_while_paused(runtime: Runtime, tmp_path: pathlib.Path) -> None:
    """All of them, and go on when resumed."""
    file = tmp_path / "ticks"
    with container(runtime) as one:
        counter(one, file)
        runtime("pause", one.id)
        assert runtime.state(one.id)["status"] == "paused"
        before = file.stat().st_size if file.exists() else 0
        runtime.state(one.id)
        assert (file.stat().st_size if file.exists() else 0) == before
        runtime("resume", one.id)
        assert runtime.state(one.id)["status"] == "running"
        while not file.exists() or file.stat().st_size == before:
            pass


def test_pausing_and_resuming_twice(runtime: Runtime) -> None:
    """The second time each is refused, and changes nothing."""
    with container(runtime) as one:
        assert "container not paused" in runtime.fails("resume", one.id).stderr
        runtime("pause", one.id)
        assert "container already paused" in runtime.fails("pause", one.id).stderr
        assert runtime.state(one.id)["status"] == "paused"
        runtime("resume", one.id)


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_there_must_be_something_to_act_on(runtime: Runtime, verb: str) -> None:
    """Neither a stopped nor an unknown container."""
    assert "container does not exist" in runtime.fails(verb, runtime.id()).stderr
    with container(runtime) as one:
        one.end_init()
        words = "container not running" if verb == "pause" else "container not paused"
        assert words in runtime.fails(verb, one.id).stderr


def test_an_unknown_container_does_not_disturb_a_paused_one(runtime: Runtime) -> None:
    """Each command acts on its own container only."""
    with container(runtime) as one, container(runtime) as two:
        runtime("pause", one.id)
        runtime.fails("resume", runtime.id())
        assert (runtime.state(one.id)["status"], runtime.state(two.id)["status"]) == ("paused", "running")


def test_a_created_container_can_be_paused(runtime: Runtime) -> None:
    """And is created again when resumed: it has still to be started."""
    with container(runtime) as one:
        os.mkfifo(f"{one.entry.path}/{one.entry.FIFO}")
        waiting = one.spawn("/bin/sh", "-c", f"exec 3<>{one.entry.path}/{one.entry.FIFO}; read x <&3")
        one.adopt(waiting, "created")
        runtime.wait_status(one.id, "created")
        runtime("pause", one.id)
        assert runtime.state(one.id)["status"] == "paused"
        runtime("resume", one.id)
        assert runtime.state(one.id)["status"] == "created"


def test_who_pauses_waits_for_the_lock(runtime: Runtime) -> None:
    """Another command that changes the container is let finish."""
    with container(runtime) as one:
        with one.entry.lock():
            pausing = runtime.start_background("pause", one.id)
            with pytest.raises(subprocess.TimeoutExpired):
                pausing.process.wait(0.3)
            assert runtime.state(one.id)["status"] == "running"
        assert pausing.wait().returncode == 0
        assert runtime.state(one.id)["status"] == "paused"


def test_a_paused_container_is_killed(runtime: Runtime) -> None:
    """SIGKILL ends what the freezer holds; other signals wait until it is resumed."""
    with container(runtime) as one:
        runtime("pause", one.id)
        runtime("kill", one.id, "TERM")
        assert runtime.state(one.id)["status"] == "paused"
        runtime("kill", one.id, "KILL")
        assert one.init.wait(10) in (-signal.SIGKILL, -signal.SIGTERM)
        assert runtime.state(one.id)["status"] == "stopped"

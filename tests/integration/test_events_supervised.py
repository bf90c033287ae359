"""`events` with the supervisor itself: what it tells of restarts, exits and kills, and when it is killed or ends."""

import json
import os
import pathlib
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.bundle import Bundle
from tests.support.runtime import Running, Runtime, wait_until


@pytest.fixture
def sleeper(new_bundle: Callable[..., Bundle]) -> Bundle:
    """A bundle that sleeps, with 32 MiB of memory."""
    bundle = new_bundle("/bin/sleep", "1000")
    bundle.linux["resources"] = {"memory": {"limit": 32 << 20, "swap": 32 << 20}}
    return bundle.save()


def told(running: Running) -> list[dict[str, Any]]:
    """The numbered events that were printed."""
    lines = running.stdout.splitlines(keepends=True)
    return [event for event in map(json.loads, (line for line in lines if line.endswith("\n"))) if "seq" in event]


def wait_for(running: Running, kind: str, count: int = 1) -> None:
    wait_until(lambda: [e["type"] for e in told(running)].count(kind) >= count, 60, f"{count} of {kind}")


def kill_init(runtime: Runtime, name: str) -> None:
    os.kill(runtime.state(name)["pid"], signal.SIGKILL)


def test_a_life_with_a_restart(runtime: Runtime, sleeper: Bundle) -> None:
    """`events ID` sees the restart through and ends with the last exit; `--since` tells it all again."""
    name = runtime.id()
    runtime("run", "--detach", "--restart", "on-failure:1", "--bundle", sleeper.path, name)
    watching = runtime.start_background("events", "--interval", "200ms", "--since", "0", name)
    wait_for(watching, "start")
    kill_init(runtime, name)
    wait_for(watching, "restart")
    runtime.wait_status(name, "running")
    runtime("exec", name, "/bin/true")
    wait_for(watching, "exec")
    kill_init(runtime, name)
    assert watching.wait(60).returncode == 0
    kinds = [event["type"] for event in told(watching) if not event["data"].get("pending")]
    assert kinds == ["start", "exit", "restart", "exec", "exit"]
    numbers = [event["seq"] for event in told(watching)]
    assert numbers == sorted(set(numbers))
    again = runtime.start_background("events", "--since", "0", name)
    assert again.wait().returncode == 0
    assert told(again) == told(watching)


def test_an_out_of_memory_kill_is_numbered_too(runtime: Runtime, sleeper: Bundle) -> None:
    """In runc's words for who asks as with runc, with a number for all others."""
    name = runtime.id()
    runtime("run", "--detach", "--bundle", sleeper.path, name)
    everyone = runtime.start_background("events", "--all", "--since", "0")
    watching = runtime.start_background("events", "--interval", "50ms", name)
    wait_for(everyone, "start")
    wait_until(lambda: watching.stdout, 30, "a report")
    hog = runtime.start_background("exec", name, "sh", "-c", "x=$(dd if=/dev/urandom ibs=5120k)")
    wait_for(everyone, "oom")
    wait_until(lambda: f'{{"type":"oom","id":"{name}"}}\n' in watching.stdout, 30, "runc's line")
    hog.wait()


def test_no_event_is_lost_with_the_supervisor(runtime: Runtime, sleeper: Bundle) -> None:
    """Killed and started anew, it goes on with the numbers; a reader goes on with it, and has each event once."""
    name, other = runtime.id(), runtime.id()
    runtime("run", "--detach", "--bundle", sleeper.path, name)
    watching = runtime.start_background("events", "--all", "--since", "0")
    wait_for(watching, "start")
    os.kill(json.loads(runtime("supervisor", "--status").stdout)["pid"], signal.SIGKILL)
    runtime("run", "--detach", "--bundle", sleeper.path, other)
    wait_for(watching, "start", 2)
    runtime("pause", name)
    wait_for(watching, "pause")
    numbers = [event["seq"] for event in told(watching)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert pathlib.Path(runtime.root, "@supervisor/events/journal").stat().st_mode & 0o777 == 0o600


def test_a_restart_that_is_called_off(runtime: Runtime, sleeper: Bundle) -> None:
    """Stopped while it waits for its next start: that was the end, and `events` ends too."""
    name = runtime.id()
    restart = ("--restart", "always", "--restart-delay", "1h")
    runtime("run", "--detach", *restart, "--bundle", sleeper.path, name)
    watching = runtime.start_background("events", "--since", "0", name)
    wait_for(watching, "start")
    kill_init(runtime, name)
    wait_for(watching, "exit")
    assert watching.process.poll() is None
    runtime("delete", "--force", name)
    assert watching.wait(60).returncode == 0


def test_a_restart_without_the_supervisor_of_before(runtime: Runtime, sleeper: Bundle) -> None:
    """The container dies while its supervisor is dead: the next one starts it again, and `events` has waited for it."""
    name = runtime.id()
    runtime("run", "--detach", "--restart", "always", "--bundle", sleeper.path, name)
    watching = runtime.start_background("events", "--since", "0", name)
    wait_for(watching, "start")
    os.kill(json.loads(runtime("supervisor", "--status").stdout)["pid"], signal.SIGKILL)
    kill_init(runtime, name)
    runtime("run", "--detach", "--bundle", sleeper.path, runtime.id())
    wait_for(watching, "restart")
    assert watching.process.poll() is None
    runtime("delete", "--force", name)
    assert watching.wait(60).returncode == 0

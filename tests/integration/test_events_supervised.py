"""`events` with the supervisor itself: what it tells of restarts, exits and kills, and when it is killed or ends."""

import json
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.bundle import Bundle
from tests.support.runtime import Running, Runtime, supervisors, wait_until
from tests.support.supervised import kill_supervisor


@pytest.fixture
def sleeper(new_bundle: Callable[..., Bundle]) -> Bundle:
    """A bundle that sleeps, with 32 MiB of memory."""
    bundle = new_bundle("/bin/sleep", "1000")
    bundle.linux["resources"] = {"memory": {"limit": 32 << 20, "swap": 32 << 20}}
    return bundle.save()


def of(running: Running, name: str) -> list[str]:
    """The kinds of a container's events."""
    return [event["type"] for event in told(running) if event["id"] == name and not event["data"].get("pending")]


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


# ---- of containers that nobody supervises


def test_every_container_is_told_of(runtime: Runtime, new_bundle: Callable[..., Bundle], sleeper: Bundle) -> None:
    """`--all` starts who watches, and sees start and end of whatever way there is to run a container."""
    watching = runtime.start_background("events", "--all")
    wait_for(watching, "supervisor")
    bundle, shown = new_bundle().sh("exit 7"), new_bundle().sh("exit 8")
    shown.process["terminal"] = True
    foreground, terminal, created, alone = (runtime.id() for _ in range(4))
    assert runtime("run", "--bundle", bundle.path, foreground, check=False).returncode == 7
    outer = ["script", "-qec", " ".join(runtime.argv("run", "--bundle", shown.save().path, terminal)), "/dev/null"]
    with open(runtime.directory / "typescript", "wb") as output:
        assert subprocess.run(outer, stdin=subprocess.DEVNULL, stdout=output, timeout=60, check=False).returncode == 8
    runtime("create", "--bundle", sleeper.path, created)
    runtime("start", created)
    runtime("kill", created, "KILL")
    runtime("run", "--detach", "--no-supervisor", "--bundle", sleeper.path, alone)
    wait_until(lambda: {"kill", "exit"} <= {*of(watching, created)}, 60, "the end")
    runtime("delete", created)
    runtime("delete", "--force", alone)
    wait_until(lambda: "delete" in of(watching, alone), 60, "all of it")
    assert of(watching, foreground) == of(watching, terminal) == of(watching, alone) == ["start", "exit", "delete"]
    # Of a kill may be told behind what it led to.
    assert sorted(of(watching, created)) == ["delete", "exit", "kill", "start"]
    assert (of(watching, created)[0], of(watching, created)[-1]) == ("start", "delete")
    codes = {event["id"]: event["data"]["code"] for event in told(watching) if event["type"] == "exit"}
    assert codes == {foreground: 7, terminal: 8, created: 137, alone: 137}


def test_who_watches_is_killed(runtime: Runtime, sleeper: Bundle) -> None:
    """The reader starts another, which sees the end of what ran meanwhile, and its want of memory."""
    name = runtime.id()
    watching = runtime.start_background("events", "--all")
    wait_for(watching, "supervisor")
    runtime("create", "--bundle", sleeper.path, name)
    runtime("start", name)
    wait_for(watching, "start")
    kill_supervisor(runtime)
    wait_for(watching, "supervisor", 2)
    hog = runtime.start_background("exec", name, "sh", "-c", "x=$(dd if=/dev/urandom ibs=5120k)")
    wait_for(watching, "oom")
    hog.wait()
    kill_init(runtime, name)
    wait_for(watching, "exit")
    assert of(watching, name)[-1] == "exit"


def test_who_watches_is_dismissed(runtime: Runtime) -> None:
    """A reader starts no other, but hears of it when there is one; and without a reader none stays."""
    watching = runtime.start_background("events", "--all")
    wait_for(watching, "supervisor")
    runtime("supervisor", "--stop")
    wait_for(watching, "supervisor", 2)
    time.sleep(2.5)  # of its looks at every second
    assert supervisors(str(runtime.root)) == []
    another = runtime.start_background("events", "--all", "--since", "0")
    wait_for(watching, "supervisor", 3)
    for reader in (watching, another):
        reader.process.kill()
        reader.wait()
    wait_until(lambda: not supervisors(str(runtime.root)), 60, "its end")

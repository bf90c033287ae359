"""`events`: usage as runc prints it, out-of-memory kills, the end; and what a supervisor tells."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.bundle import Bundle
from tests.support.feeder import Feeder, feeder
from tests.support.runtime import Running, Runtime, wait_until

# What runc 1.5 leaves out where it is zero, and older ones print.
ZEROS = {("cpu", "usage"), ("cpu", "throttling"), *(("memory", part) for part in ("swap", "kernel", "kernelTCP"))}
# What newer ones print, and older ones do not know.
NEWER = {("cpu", "psi"), ("memory", "psi"), ("blkio", "psi")}


@pytest.fixture
def sleeper(new_bundle: Callable[..., Bundle]) -> Bundle:
    """A bundle that sleeps, with 32 MiB of memory."""
    bundle = new_bundle("/bin/sleep", "1000")
    bundle.linux["resources"] = {"memory": {"limit": 32 << 20, "swap": 32 << 20}}
    return bundle.save()


def up(runtime: Runtime, bundle: Bundle, name: str = "") -> str:
    """A container that runs, and that no supervisor was started for."""
    name = name or runtime.id()
    runtime("create", "--bundle", bundle.path, name)
    runtime("start", name)
    return name


def events(text: str) -> list[dict[str, Any]]:
    """The whole lines of what was printed."""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def kinds(running: Running) -> list[str]:
    return [event["type"] for event in events(running.stdout)]


def tree(value: object, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """The path of every key, the content of `raw` and of lists left out."""
    if not isinstance(value, dict) or path[-1:] == ("raw",):
        return {path}
    return {path}.union(*(tree(inner, (*path, key)) for key, inner in value.items()))


# ---- usage, once


def test_usage_once(any_runtime: Runtime, sleeper: Bundle) -> None:
    """One line with what the container uses, quickly, and limits as they were set."""
    name = up(any_runtime, sleeper)
    line = any_runtime("events", "--stats", name).stdout
    assert line.startswith(f'{{"type":"stats","id":"{name}","data":{{"cpu":{{"usage":{{"total":')
    (event,) = events(line)
    data = event["data"]
    assert data["memory"]["usage"]["limit"] == 32 << 20
    assert data["pids"]["current"] == 1
    assert data["network_interfaces"] is None
    assert list(data)[:8] == [
        *("cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces")
    ]  # fmt: skip


@pytest.fixture
def by_runc(sleeper: Bundle, workplace: pathlib.Path) -> Iterator[dict[str, Any]]:
    """What Debian's runc prints of a like container."""
    runc = shutil.which("runc")
    if runc is None:
        pytest.skip("no runc; to force it: apt-get install runc")
    config = json.loads(json.dumps(sleeper.config))
    # As far as this machine lets an old runc go.
    config["process"].pop("capabilities", None)
    config["process"].pop("rlimits", None)
    (sleeper.path / "config.json").write_text(json.dumps(config))
    name = f"svt-runc-{os.getpid()}"
    command = [runc, "--root", str(workplace / "runc")]
    try:
        # Not to a pipe, which the container would hold open.
        with open(workplace / "said", "w+") as said:
            done = subprocess.run(
                [*command, "run", "-d", "--bundle", str(sleeper.path), name],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, timeout=60,
            )  # fmt: skip
            said.seek(0)
            if done.returncode:
                pytest.skip(f"runc does not run here: {said.read().strip()}; to force it: let it run")
        shown = subprocess.run([*command, "events", "--stats", name], stdout=subprocess.PIPE, timeout=60, check=True)
        yield json.loads(shown.stdout)
    finally:
        subprocess.run([*command, "delete", "--force", name], stderr=subprocess.DEVNULL, timeout=60)
        sleeper.save()


def test_the_keys_are_runcs(plain_runtime: Runtime, sleeper: Bundle, by_runc: dict[str, Any]) -> None:
    """Same keys and nesting as Debian's runc on the same kind of container, but for zeros and what is newer."""
    name = up(plain_runtime, sleeper)
    (ours,) = events(plain_runtime("events", "--stats", name).stdout)
    assert list(ours) == list(by_runc)
    mine, theirs = tree(ours["data"]), tree(by_runc["data"])
    raw = ours["data"]["memory"]["raw"], by_runc["data"]["memory"]["raw"]
    assert list(raw[0]) == list(raw[1])

    def negligible(path: tuple[str, ...]) -> bool:
        # Counters that happen to be zero in one of two containers, and blocks that one has read and the other has not.
        return path[0] == "blkio" or path[-1] in {"cache", "usage", "max", "total"} or path[:2] in NEWER | ZEROS

    assert {path for path in mine ^ theirs if not negligible(path)} == set()


def test_network_traffic_is_counted_inside(runtime: Runtime, new_bundle: Callable[..., Bundle]) -> None:
    """Interfaces of the container's own network namespace but for lo, whatever it calls them."""
    if shutil.which("ip") is None:
        pytest.skip("no ip; to force it: apt-get install iproute2")
    name = up(runtime, new_bundle("/bin/sleep", "1000"))
    pid = str(runtime.state(name)["pid"])
    inside = ["nsenter", "-t", pid, "-n", "ip"]
    subprocess.run([*inside, "link", "add", 'sv"0', "type", "veth", "peer", "name", "sv1"], check=True)
    for interface in ('sv"0', "sv1"):
        subprocess.run([*inside, "link", "set", interface, "up"], check=True)
    (event,) = events(runtime("events", "--stats", name).stdout)
    found = {row["Name"]: row for row in event["data"]["network_interfaces"]}
    assert set(found) == {'sv"0', "sv1"}
    assert set(found["sv1"]) == {
        *("Name", "RxBytes", "RxPackets", "RxErrors", "RxDropped", "TxBytes", "TxPackets", "TxErrors", "TxDropped")
    }  # fmt: skip


def test_usage_of_all(runtime: Runtime, new_bundle: Callable[..., Bundle]) -> None:
    """One line for each that has not ended, the created and the paused included; a table lines up."""
    bundle = new_bundle("/bin/sleep", "1000")
    first, second, third = up(runtime, bundle), up(runtime, bundle), runtime.id()
    runtime("create", "--bundle", bundle.path, third)
    runtime("pause", second)
    assert [event["id"] for event in events(runtime("events", "--all", "--stats").stdout)] == [first, second, third]
    runtime("resume", second)
    runtime("kill", first, "KILL")
    runtime.wait_status(first, "stopped")
    title, *rows = runtime("events", "--all", "--stats", "--format", "table").stdout.splitlines()
    assert title.split() == ["TIME", "SEQ", "TYPE", "ID", "DETAILS"]
    assert [row[title.index("ID") :].split()[0] for row in rows] == [second, third]
    assert all(row[title.index("DETAILS") :].startswith("cpu=") for row in rows)


# ---- a stream without a supervisor


def test_a_stream_ends_with_the_container(any_runtime: Runtime, sleeper: Bundle) -> None:
    """Usage at every interval, and an end with 0 when the container is deleted."""
    name = up(any_runtime, sleeper)
    watching = any_runtime.start_background("events", "--interval", "100ms", name)
    wait_until(lambda: len(events(watching.stdout)) >= 3, 30, "three reports")
    any_runtime("delete", "--force", name)
    done = watching.wait()
    assert (done.returncode, done.stderr) == (0, "")
    assert {(event["type"], event["id"]) for event in events(done.stdout)} == {("stats", name)}


def test_an_out_of_memory_kill(any_runtime: Runtime, sleeper: Bundle) -> None:
    """A line of its own, exactly runc's, and the stream goes on while init lives."""
    name = up(any_runtime, sleeper)
    watching = any_runtime.start_background("events", "--interval", "50ms", name)
    wait_until(lambda: "stats" in kinds(watching), 30, "a report")
    hog = any_runtime.start_background("exec", name, "sh", "-c", "x=$(dd if=/dev/urandom ibs=5120k)")
    wait_until(lambda: "oom" in kinds(watching), 60, "the kill")
    assert f'{{"type":"oom","id":"{name}"}}\n' in watching.stdout
    assert watching.process.poll() is None
    any_runtime("kill", name, "KILL")
    assert watching.wait().returncode == 0
    hog.wait()


def test_init_killed_for_want_of_memory(runtime: Runtime, sleeper: Bundle) -> None:
    """The kill that ended the container is told before the end."""
    sleeper.sh("sleep 1; x=$(dd if=/dev/urandom ibs=5120k); exec sleep 1000")
    sleeper.process["oomScoreAdj"] = 500
    name = up(runtime, sleeper.save())
    done = runtime("events", "--interval", "10s", name, timeout=60, check=False)
    if runtime.state(name)["status"] == "running":
        pytest.skip("the kernel chose another process; to force it: run it again")
    assert done.returncode == 0, repr(done)
    assert {event["type"] for event in events(done.stdout)} == {"oom"}


def test_what_cannot_be_followed(runtime: Runtime, sleeper: Bundle) -> None:
    """One line each: a stopped container, none at all, a wrong interval, numbers without who keeps them."""
    name = up(runtime, sleeper)
    for arguments, expected in (
        (("--interval", "0s", name), "duration interval must be greater than 0"),
        (("--interval", "-1s", name), "duration interval must be greater than 0"),
        ((), "requires exactly 1 argument"),
        (("--all", name), "requires no argument with --all"),
        (("--since", "-4", name), "expected the number of an event"),
        (("--since", "4", "--stats", name), "--since is for a stream"),
        (("--since", "4", name), "no supervisor keeps events"),
        (("--since", "4", "--all"), "no supervisor keeps events"),
        (("--format", "xml", name), "xml"),
        (("absent",), "container does not exist: 'absent'"),
        (("--stats", "absent"), "container does not exist: 'absent'"),
    ):
        error = runtime.fails("events", *arguments).stderr
        assert expected in error
        assert error.count("\n") == 1
    runtime("kill", name, "KILL")
    runtime.wait_status(name, "stopped")
    for flag in ("--stats", "--interval=1s"):
        assert f"container with id {name} is not running" in runtime.fails("events", flag, name).stderr


def test_a_reader_that_leaves(runtime: Runtime, sleeper: Bundle) -> None:
    """Nobody to read, nothing to do: it ends as by SIGPIPE; Ctrl-C ends it as always. Neither says a word."""
    name = up(runtime, sleeper)
    reader, writer = os.pipe()
    watching = runtime.start_background("events", "--interval", "50ms", name, stdout=writer)
    os.close(writer)
    os.read(reader, 10)
    os.close(reader)
    done = watching.wait()
    assert (done.returncode, done.stderr) == (141, "")
    watching = runtime.start_background("events", "--interval", "50ms", name)
    wait_until(lambda: watching.stdout, 30, "a report")
    watching.process.send_signal(signal.SIGINT)
    done = watching.wait()
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


# ---- with somebody who keeps events


@pytest.fixture
def fed(runtime: Runtime) -> Iterator[Feeder]:
    with feeder(runtime.root) as served:
        yield served


def test_commands_are_told_of(runtime: Runtime, sleeper: Bundle, fed: Feeder) -> None:
    """From start to delete, in order and with their numbers, also for late readers; a failed one is not."""
    watching = runtime.start_background("events", "--all")
    wait_until(lambda: fed.readers() == 1, 30, "the reader")
    name = up(runtime, sleeper)
    runtime("exec", name, "/bin/true")
    runtime("pause", name)
    runtime("resume", name)
    runtime("update", "--pids-limit", "50", name)
    runtime.fails("pause", "absent")
    runtime("kill", name, "KILL")
    runtime.wait_status(name, "stopped")
    runtime("delete", name)
    wanted = ["start", "exec", "pause", "resume", "update", "kill", "delete"]
    wait_until(lambda: len(kinds(watching)) == len(wanted), 30, "all events")
    told = events(watching.stdout)
    assert [event["type"] for event in told] == wanted
    assert [event["seq"] for event in told] == [1, 2, 3, 4, 5, 6, 7]
    assert {event["id"] for event in told} == {name}
    assert told[1]["data"]["program"] == "/bin/true"
    assert told[4]["data"] == {"resources": {"pids": {"limit": 50}}}
    assert told[5]["data"] == {"signal": 9}
    # Of a container that is gone there is what was kept, and then the end.
    kept = events(runtime("events", "--since", "4", name).stdout)
    assert [event["seq"] for event in kept] == [5, 6, 7]
    assert kept == told[4:]


def test_a_reader_that_pauses(runtime: Runtime, fed: Feeder) -> None:
    """It holds up nobody; when it reads on it is told where and how much is missing, and then what is new."""
    reader, writer = os.pipe()
    watching = runtime.start_background("events", "--all", stdout=writer)
    os.close(writer)
    wait_until(lambda: fed.readers() == 1, 30, "the reader")
    count = 20_000
    fed.flood("box", count)
    told, missing = 0, 0
    with open(reader) as lines:
        for line in lines:
            event = json.loads(line)
            missing += event["count"] if event["type"] == "dropped" else 0
            told += event["type"] == "health"
            if told + missing == count:
                break
        assert missing > 0
        last = fed.publish("health", "box")
        assert json.loads(lines.readline())["seq"] == last
    watching.process.kill()
    watching.wait()


def test_the_last_word_is_waited_for(runtime: Runtime, sleeper: Bundle, fed: Feeder) -> None:
    """Not an exit without its code, nor one with a restart to follow; the end of the container is."""
    name = up(runtime, sleeper)
    watching = runtime.start_background("events", "--interval", "1h", name)
    wait_until(lambda: fed.readers() == 1, 30, "the reader")
    fed.publish("start", "another")
    fed.publish("oom", name)
    runtime("kill", name, "KILL")
    runtime.wait_status(name, "stopped")
    fed.publish("exit", name, code=None, pending=True, restarting=False)
    fed.publish("exit", name, code=137, restarting=True)
    fed.publish("health", name, status="restart failed", restarting=True)
    wait_until(lambda: kinds(watching) == ["kill", "exit", "exit", "health"], 30, "all of it")
    assert watching.process.poll() is None
    runtime("delete", name)
    assert watching.wait().returncode == 0
    assert kinds(watching)[4:] == ["delete"]


def test_a_supervisor_may_come_and_go(runtime: Runtime, sleeper: Bundle) -> None:
    """A reader goes on without one, and hears from the next one what it has missed."""
    name, other = up(runtime, sleeper), up(runtime, sleeper)
    watching = runtime.start_background("events", "--interval", "100ms", name)
    wait_until(lambda: "stats" in kinds(watching), 30, "usage, without one")
    with feeder(runtime.root) as first:
        wait_until(lambda: first.readers() == 1, 30, "the reader")
        first.publish("health", name, status="good")
        first.publish("health", other, status="fair")
        wait_until(lambda: "health" in kinds(watching), 30, "an event")
    runtime("kill", other, "KILL")
    runtime.wait_status(other, "stopped")
    assert [event["data"] for event in events(runtime("events", "--since", "0", other).stdout)] == [{"status": "fair"}]
    with feeder(runtime.root) as second:
        second.publish("health", name, status="bad")
        wait_until(lambda: second.readers() == 1, 30, "the reader")
        wait_until(lambda: kinds(watching).count("health") == 2, 30, "what was missed")
    assert [event["seq"] for event in events(watching.stdout) if event["type"] == "health"] == [1, 3]

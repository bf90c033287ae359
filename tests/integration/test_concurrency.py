"""Many commands at once: on containers of their own they do not meet, on the same one exactly one of them wins."""

import itertools
import json
import pathlib
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import leaks
from tests.support.bundle import Bundle, make_bundle
from tests.support.runtime import Result, Running, Runtime, wait_until

MANY = 100
# Started without waiting for one another; more only wait for the processor.
WIDTH = 25
PATIENCE = 120


@pytest.fixture(scope="module")
def shared_bundle(tmp_path_factory: pytest.TempPathFactory, rootfs_template: pathlib.Path) -> Bundle:
    """One bundle for all, as an image is."""
    directory = tmp_path_factory.mktemp("concurrency")
    for path in (directory, directory.parent):
        path.chmod(0o755)
    return make_bundle(directory / "bundle", rootfs_template)


def together(runtime: Runtime, commands: list[list[str]]) -> list[Result]:
    """Run them all, up to WIDTH at any moment."""
    running: list[Running] = []
    results: list[Result] = []
    for command in commands:
        running.append(runtime.start_background(*command))
        if len(running) >= WIDTH:
            results.append(running.pop(0).wait(PATIENCE))
    return results + [one.wait(PATIENCE) for one in running]


def check_clean(result: Result) -> None:
    """One line of explanation at most, and never a traceback."""
    assert "Traceback" not in result.stderr, repr(result)
    assert "internal error" not in result.stderr, repr(result)
    assert "unexpected failure" not in result.stderr, repr(result)
    assert len([line for line in result.stderr.splitlines() if "warning" not in line]) <= 1, repr(result)


def test_many_runs(any_runtime: Runtime, shared_bundle: Bundle) -> None:
    """A hundred at once all succeed, and leave nothing."""
    runtime = any_runtime
    shared_bundle.sh("exit 7")
    commands = [["run", "--bundle", str(shared_bundle.path), runtime.id()] for _ in range(MANY)]
    for result in together(runtime, commands):
        assert result.returncode == 7, repr(result)
    assert leaks.find(runtime) == []


def test_many_creates_get_ids_of_their_own(runtime: Runtime, shared_bundle: Bundle) -> None:
    """No two of a hundred containers share a single id of the host; deleted all at once they leave nothing."""
    shared_bundle.run("/bin/true")
    names = [runtime.id() for _ in range(MANY)]
    for result in together(runtime, [["create", "--bundle", str(shared_bundle.path), name] for name in names]):
        assert result.returncode == 0, repr(result)
    for kind in ("uid", "gid"):
        ranges = sorted(record(runtime, name)["subid"][kind] for name in names)
        assert all(after - before >= 65536 for before, after in itertools.pairwise(ranges))
    maps = {pathlib.Path(f"/proc/{record(runtime, name)['initPid']}/uid_map").read_text() for name in names}
    assert len(maps) == MANY
    assert sorted(runtime.ids()) == sorted(names)
    for result in together(runtime, [["delete", "--force", name] for name in names]):
        assert result.returncode == 0, repr(result)
    assert leaks.find(runtime) == []


def record(runtime: Runtime, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((runtime.root / name / "state.json").read_text())
    return loaded


def test_one_id_many_times(any_runtime: Runtime, shared_bundle: Bundle) -> None:
    """Exactly one `create` wins, the others say that the id is taken, and the winner's container is whole."""
    runtime = any_runtime
    shared_bundle.run("/bin/sleep", "1000")
    for _ in range(5):
        name = runtime.id()
        results = together(runtime, [["create", "--bundle", str(shared_bundle.path), name]] * 10)
        assert sorted(result.returncode for result in results) == [0] + [1] * 9
        assert sum("already exists" in result.stderr for result in results) == 9
        assert runtime.state(name)["status"] == "created"
        runtime("start", name)
        runtime("delete", "--force", name)
        assert leaks.find(runtime) == []


def test_one_start_wins(any_runtime: Runtime, shared_bundle: Bundle) -> None:
    """The others say that it is running."""
    runtime, name = any_runtime, any_runtime.id()
    runtime("create", "--bundle", shared_bundle.run("/bin/sleep", "1000").path, name)
    results = together(runtime, [["start", name]] * 8)
    assert sorted(result.returncode for result in results) == [0] + [1] * 7
    assert sum("cannot start an already running container" in result.stderr for result in results) == 7
    assert runtime.state(name)["status"] == "running"


def test_deletes_at_once(any_runtime: Runtime, shared_bundle: Bundle) -> None:
    """Of several `delete`s one wins and the others find nothing; forced, all have what they asked for."""
    runtime = any_runtime
    shared_bundle.run("/bin/sleep", "1000")
    for force in ([], ["--force"]):
        name = runtime.id()
        runtime("create", "--bundle", shared_bundle.path, name)
        results = together(runtime, [["delete", *force, name]] * 6)
        for result in results:
            check_clean(result)
        assert sorted(result.returncode for result in results) == ([0] * 6 if force else [0] + [1] * 5)
        assert sum("does not exist" in result.stderr for result in results) == (0 if force else 5)
        assert leaks.find(runtime) == []


def test_a_forced_delete_racing_with_run(any_runtime: Runtime, shared_bundle: Bundle) -> None:
    """Whoever comes first, `delete --force` succeeds, `run` ends without a traceback, and nothing is left."""
    runtime = any_runtime
    shared_bundle.run("/bin/sleep", "1000")
    generator = random.Random(1)
    for _ in range(20):
        name = runtime.id()
        run = runtime.start_background("run", "--bundle", shared_bundle.path, name)
        while run.process.poll() is None:
            time.sleep(generator.random() * 0.05)
            check_clean(result := runtime("delete", "--force", name))
            assert result.returncode == 0, repr(result)
        result = run.wait()
        check_clean(result)
        # Killed while it ran, or deleted before it was there.
        assert result.returncode in (1, 137), repr(result)
        assert leaks.find(runtime) == []


def test_a_delete_does_not_disturb_a_launch(any_runtime: Runtime, shared_bundle: Bundle) -> None:
    """It waits for a launch to be done, even where that takes its time."""
    runtime, name = any_runtime, any_runtime.id()
    shared_bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1"]}]}
    try:
        shared_bundle.run("/bin/true")
        launch = runtime.start_background("create", "--bundle", shared_bundle.path, name)
        wait_until((runtime.root / name / "state.json.new").exists)
        assert runtime.state(name)["status"] == "creating"
        assert runtime("list", "-f", "json").json[0]["status"] == "creating"
        runtime("delete", "--force", name)
        assert launch.wait().returncode == 0
    finally:
        del shared_bundle.config["hooks"]
    assert leaks.find(runtime) == []


def test_kill_racing_with_the_end(any_runtime: Runtime, shared_bundle: Bundle) -> None:
    """A signal reaches the container or finds it ended, with nothing else in between."""
    runtime = any_runtime
    shared_bundle.run("/bin/true")
    for _ in range(10):
        name = runtime.id()
        runtime("create", "--bundle", shared_bundle.path, name)
        killers = [runtime.start_background("kill", name, "KILL") for _ in range(2)]
        starter = runtime.start_background("start", name)
        for killer in killers:
            result = killer.wait()
            assert result.returncode == 0 or "container not running" in result.stderr, repr(result)
            check_clean(result)
        check_clean(starter.wait())
        runtime.wait_status(name, "stopped")
        runtime("delete", name)
    assert leaks.find(runtime) == []


def test_looking_while_containers_come_and_go(any_runtime: Runtime, shared_bundle: Bundle) -> None:
    """`state`, `list` and `ps` answer or say that there is no such container."""
    runtime, name = any_runtime, any_runtime.id()
    shared_bundle.run("/bin/sleep", "1000")
    done = threading.Event()
    looked: list[Result] = []

    def look(*command: str) -> None:
        while not done.is_set():
            looked.append(runtime(*command, check=False))

    watchers = [("state", name), ("list",), ("list", "-f", "json"), ("ps", name), ("kill", name, "0")]
    threads = [threading.Thread(target=look, args=command) for command in watchers]
    runtime.root.mkdir(0o700)
    for thread in threads:
        thread.start()
    try:
        for _ in range(15):
            runtime("run", "-d", "--bundle", shared_bundle.path, name)
            runtime("delete", "--force", name)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    statuses = set()
    for result in looked:
        check_clean(result)
        command = result.args[len(runtime.argv()) :]
        if command[0] == "list":
            assert result.returncode == 0, repr(result)
        elif result.returncode == 0 and command[0] == "state":
            statuses.add(result.json["status"])
    assert statuses <= {"creating", "created", "running", "stopped"}
    assert len(looked) > 20


def test_execs_racing_with_the_end(any_runtime: Runtime, shared_bundle: Bundle) -> None:
    """Processes that join while the container is taken away end with it, and hinder nobody."""
    runtime = any_runtime
    shared_bundle.run("/bin/sleep", "1000")
    for _ in range(3):
        name = runtime.id()
        runtime("run", "-d", "--bundle", shared_bundle.path, name)
        execs = [runtime.start_background("exec", name, "/bin/sleep", "1000") for _ in range(6)]
        time.sleep(0.05)
        runtime("delete", "--force", name)
        for one in execs:
            result = one.wait()
            check_clean(result)
            assert result.returncode in (255, 128 + signal.SIGKILL), repr(result)
        assert leaks.find(runtime) == []


def test_updates_at_once(any_runtime: Runtime, new_bundle: Callable[..., Bundle]) -> None:
    """The record tells the limits that the kernel has, whichever came last."""
    runtime, name = any_runtime, any_runtime.id()
    runtime("run", "-d", "--bundle", new_bundle("/bin/sleep", "1000").path, name)
    for result in together(runtime, [["update", "--pids-limit", str(limit), name] for limit in range(50, 62)]):
        assert result.returncode == 0, repr(result)
    recorded = json.loads((runtime.root / name / "state.json").read_text())
    limit = recorded["spec"]["linux"]["resources"]["pids"]["limit"]
    paths = recorded["cgroup"]["paths"]
    directory = paths.get("pids") or paths["unified"]
    assert pathlib.Path(directory, "pids.max").read_text().strip() == str(limit)

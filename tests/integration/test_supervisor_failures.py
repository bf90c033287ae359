"""What goes wrong with a supervisor, and what it must not harm."""

import contextlib
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator

import pytest

from sysvisor_runc.launch import tell
from sysvisor_runc.state.process import read_stat
from tests.support.bundle import Bundle
from tests.support.runtime import Runtime, supervisors, wait_until
from tests.support.supervised import alive, events, known, status

NewBundle = Callable[..., Bundle]


def run(runtime: Runtime, bundle: Bundle, *flags: str) -> str:
    name = runtime.id()
    runtime("run", "--detach", *flags, "--bundle", bundle.path, name)
    return name


@pytest.fixture
def stopped(runtime: Runtime, new_bundle: NewBundle) -> Iterator[int]:
    """A supervisor that has been stopped (SIGSTOP); its pid. It goes on at the end."""
    run(runtime, new_bundle("/bin/sleep", "1000"))
    pid: int = status(runtime)["pid"]
    os.kill(pid, signal.SIGSTOP)
    yield pid
    if alive(pid):
        os.kill(pid, signal.SIGCONT)


def test_a_stopped_supervisor_holds_nobody_up(runtime: Runtime, new_bundle: NewBundle, stopped: int) -> None:
    """Containers start, run, are asked about and end meanwhile; afterwards it knows of all of them."""
    name = run(runtime, new_bundle("/bin/sleep", "1000"))
    short = run(runtime, new_bundle().sh("exit 9"))
    runtime.wait_status(short, "stopped")
    assert runtime.state(name)["status"] == "running"
    runtime("exec", name, "/bin/true")
    runtime("kill", name, "KILL")
    runtime.wait_status(name, "stopped")
    os.kill(stopped, signal.SIGCONT)
    assert runtime("wait", name).stdout == "137\n"
    # Dead and reaped long before it was adopted: its pidfd still tells.
    assert runtime("wait", short).stdout == "9\n"
    assert status(runtime)["pid"] == stopped


def test_stopped_for_longer_than_commands_wait(runtime: Runtime, new_bundle: NewBundle, stopped: int) -> None:
    """What needs it says so in the end and leaves nothing behind; what came too late does not confuse it.

    Nobody waits for it longer than that (15 s), so that a minute or an hour makes no difference.
    """
    bundle, name = new_bundle("/bin/sleep", "1000"), runtime.id()
    needs_it = runtime.start_background("run", "--detach", "--restart", "always", "--bundle", bundle.path, name)
    asks = runtime.start_background("supervisor", "--status")
    for command in (needs_it, asks):
        done = command.wait(90)
        assert done.returncode != 0
        assert "supervisor" in done.stderr and "Traceback" not in done.stderr, repr(done)
    assert name not in runtime.ids()
    os.kill(stopped, signal.SIGCONT)
    again = run(runtime, bundle, "--restart", "always")
    assert status(runtime)["pid"] == stopped
    assert [event["type"] for event in events(runtime) if event["id"] == name] in ([], ["delete"])
    runtime("kill", again, "KILL")
    assert runtime("wait", again).stdout == "137\n"


def test_its_socket_is_removed(runtime: Runtime, new_bundle: NewBundle) -> None:
    """It listens anew, and stays the only one."""
    name = run(runtime, new_bundle("/bin/sleep", "1000"))
    pid = status(runtime)["pid"]
    (runtime.root / "@supervisor/control.sock").unlink()
    assert status(runtime)["pid"] == pid
    assert supervisors(str(runtime.root)) == [pid]
    runtime("kill", name, "KILL")
    assert runtime("wait", name).stdout == "137\n"


@pytest.fixture
def elsewhere(runtime: Runtime) -> Iterator[pathlib.Path]:
    """A directory with the runtime's state root in it, to mount something there.

    Not below the test's directory: whoever enters a mount namespace of his own meanwhile has a copy of the mount.
    """
    place = pathlib.Path(tempfile.mkdtemp(prefix="sysvisor-root-"))
    before, runtime.root = runtime.root, place / "state"
    runtime.root.mkdir(mode=0o700)
    yield place
    runtime.clean()
    subprocess.run(["umount", "-l", runtime.root], check=True)
    shutil.rmtree(place)
    runtime.root = before


def test_its_state_root_goes(runtime: Runtime, new_bundle: NewBundle, elsewhere: pathlib.Path) -> None:
    """Without its state root there is nothing to look after; its containers run on, and once it is back are known."""
    disk = elsewhere / "disk"
    disk.mkdir(mode=0o700)
    mount = ["mount", "--bind", str(disk), str(runtime.root)]
    subprocess.run(mount, check=True)
    name = run(runtime, new_bundle("/bin/sleep", "1000"))
    supervisor, init = status(runtime)["pid"], runtime.state(name)["pid"]
    subprocess.run(["umount", "-l", runtime.root], check=True)
    try:
        wait_until(lambda: not alive(supervisor), 40, "the supervisor's end")
        assert alive(init)
    finally:
        subprocess.run(mount, check=True)
    run(runtime, new_bundle())
    runtime("kill", name, "KILL")
    assert runtime("wait", name).stdout == "137\n"


LOST = re.compile(r"\[sysvisor-runc: \d{6,} bytes of output could not be kept\]\r?\n(.*\n)*behind")


@pytest.mark.usefixtures("elsewhere")
def test_a_full_disk_stops_no_output(runtime: Runtime, new_bundle: NewBundle) -> None:
    """A container whose log finds no room runs on, its end is recorded, and the gap is told of."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700,size=512k", "tmpfs", runtime.root], check=True)
    much = "dd if=/dev/zero bs=1024 count=2000 2>/dev/null | tr '\\0' x; touch /written"
    bundle = new_bundle().sh(f"read x; {much}; read x; echo behind; exit 4")
    bundle.process["terminal"] = True
    name = run(runtime, bundle.save())
    status(runtime)
    filler = runtime.root / "filler"
    with filler.open("wb") as file, pytest.raises(OSError, match="No space"):
        file.write(bytes(1 << 20))
    with tell.Dialogue(str(runtime.root)) as dialogue:
        dialogue.ask({"op": "attach", "id": name})
        os.write(dialogue.fds[0], b"go\n")
        wait_until((bundle.rootfs / "written").exists, 30, "all of the output")
        filler.unlink()
        os.write(dialogue.fds[0], b"on\n")
        os.close(dialogue.fds[0])
    assert runtime("wait", name).stdout == "4\n"
    assert LOST.search(runtime("logs", name).stdout)


def told_of(runtime: Runtime, name: str) -> str:
    """The kind of the first event that the supervisor has published of a container, once there is one."""

    def kinds() -> list[str]:
        return [event["type"] for event in events(runtime) if event["id"] == name]

    wait_until(kinds, 40, f"an event of {name}")
    return kinds()[0]


def test_descriptors_run_out(runtime: Runtime, new_bundle: NewBundle) -> None:
    """At its limit it refuses clearly, keeps what it has, and takes the others as soon as there is room."""
    limit = 256

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    runtime.start_background("supervisor", preexec_fn=limited)
    status(runtime)
    bundle = new_bundle("/bin/sleep", "1000")
    shown = new_bundle("/bin/sleep", "1000")  # with a terminal each takes most
    shown.process["terminal"] = True
    shown.save()
    names: list[str] = []
    refused = ""
    while not refused and len(names) < limit:
        name = runtime.id()
        done = runtime("run", "--detach", "--bundle", shown.path, name, check=False, timeout=60)
        if done.returncode:
            refused = done.stderr
        else:
            names.append(name)
    assert "the supervisor has no descriptor left: its limit is 256 (raise its limit" in refused
    assert runtime.ids() == sorted(names)
    assert len(names) >= 20
    # One without a terminal takes less, and may still find room.
    while told_of(runtime, left_out := run(runtime, bundle)) == "start":
        names.append(left_out)
    wait_until(lambda: "not looked after" in known(runtime, left_out).get("health", ""), 40)
    assert all(runtime.state(name)["status"] == "running" for name in names)
    for name in names[:2]:
        runtime("kill", name, "KILL")
        assert runtime("wait", name).stdout == "137\n"
    wait_until(lambda: "health" not in known(runtime, left_out), 40)
    runtime("kill", left_out, "KILL")
    assert runtime("wait", left_out).stdout == "137\n"


def test_an_init_that_ignores_sigterm(runtime: Runtime, new_bundle: NewBundle) -> None:
    """It runs on until SIGKILL, and is not started again then."""
    bundle = new_bundle().sh("trap '' TERM; echo ready >/ready; while true; do sleep 0.1; done")
    name = run(runtime, bundle, "--restart", "always")
    wait_until((bundle.rootfs / "ready").exists, 15)
    runtime("kill", name, "TERM")
    time.sleep(0.3)
    assert runtime.state(name)["status"] == "running"
    runtime("kill", name, "KILL")
    assert runtime("wait", name).stdout == "137\n"
    assert known(runtime, name)["restarting"] is False


def test_a_reused_pid_is_nobody_of_ours(runtime: Runtime, new_bundle: NewBundle) -> None:
    """A recorded pid that is another process's by now is not watched, waited for or harmed."""
    name = run(runtime, new_bundle("/bin/sleep", "1000"))
    runtime.stop_supervisor()
    file = runtime.root / name / "state.json"
    true = json.loads(file.read_text())
    other = subprocess.Popen(["/bin/sleep", "1000"])
    try:
        file.write_text(json.dumps(true | {"initPid": other.pid}))
        run(runtime, new_bundle())
        status(runtime)
        assert known(runtime, name)["exitCode"] is None
        done = runtime("wait", name)
        assert done.stdout == "255\n"
        assert "nobody knows" in done.stderr
        assert other.poll() is None
    finally:
        file.write_text(json.dumps(true))
        other.kill()
        other.wait()


def test_many_starters_one_supervisor(runtime: Runtime, new_bundle: NewBundle) -> None:
    """Of many commands at once on a fresh state root one starts it, and it gets all the containers."""
    bundle = new_bundle("/bin/sleep", "1000")
    names = [runtime.id() for _ in range(8)]
    commands = [runtime.start_background("run", "--detach", "--bundle", bundle.path, name) for name in names]
    for command in commands:
        assert command.wait(60).returncode == 0, repr(command.wait())
    wait_until(lambda: status(runtime)["running"] == len(names), 30, "the adoption of all")
    assert len(supervisors(str(runtime.root))) == 1
    pids = [runtime.state(name)["pid"] for name in names]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for name in names:
        assert runtime("wait", name).stdout == "137\n"
    ends = [event["id"] for event in events(runtime) if event["type"] == "exit"]
    assert sorted(ends) == sorted(names)


def test_many_die_at_once(runtime: Runtime, new_bundle: NewBundle) -> None:
    """Of 200 that are killed at the same moment each end is told once, in order, also while others never read.

    Their records are copies of a container's, and their inits mere processes: for what is tested they are the same.
    """
    model = run(runtime, new_bundle("/bin/sleep", "1000"))
    status(runtime)
    runtime.stop_supervisor()
    record = json.loads((runtime.root / model / "state.json").read_text())
    inits = {runtime.id(): subprocess.Popen(["/bin/sleep", "1000"]) for _ in range(200)}
    try:
        for name, init in inits.items():
            _copy(runtime.root, record, name, init.pid)
        run(runtime, new_bundle("/bin/sleep", "1000"))
        wait_until(lambda: status(runtime)["running"] == len(inits) + 2, 60, "the adoption of all")
        with contextlib.ExitStack() as stack:
            deaf = [stack.enter_context(tell.Dialogue(str(runtime.root))) for _ in range(3)]
            reader = stack.enter_context(tell.Dialogue(str(runtime.root), timeout=60))
            for dialogue in (*deaf, reader):
                dialogue.ask({"op": "events"})
            for init in inits.values():
                os.kill(init.pid, signal.SIGKILL)
            told = [next(reader.lines()) for _ in inits]
        assert {event["type"] for event in told} == {"exit"}
        assert sorted(str(event["id"]) for event in told) == sorted(inits)
        assert {event["data"]["code"] for event in told} == {137}  # type: ignore[index]  # "data" of an event
        assert len({event["seq"] for event in told}) == len(inits)
        assert status(runtime)["running"] == 2
    finally:
        for name, init in inits.items():
            init.kill()
            init.wait()
            shutil.rmtree(runtime.root / name, ignore_errors=True)


def _copy(root: pathlib.Path, record: dict[str, object], name: str, pid: int) -> None:
    """A container with somebody else's record, and with this init."""
    found = read_stat(pid)
    assert found is not None
    own = {key: value for key, value in record.items() if key != "initHandle"}
    own |= {"id": name, "initPid": pid, "initStart": found.start, "cgroup": {**record["cgroup"], "paths": {}}}  # type: ignore[dict-item]  # as the record's type has it
    (root / name).mkdir(mode=0o700)
    (root / name / "state.json").write_text(json.dumps(own))
    shutil.copy(root / str(record["id"]) / "supervision.json", root / name)


def test_nobody_else_may_talk_to_it(runtime: Runtime, new_bundle: NewBundle) -> None:
    """The socket is its owner's alone, by its directory, its mode and the peer's credentials."""
    run(runtime, new_bundle("/bin/sleep", "1000"))
    status(runtime)
    directory = runtime.root / "@supervisor"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "control.sock").stat().st_mode & 0o777 == 0o600
    script = (
        "import os, socket, sys\n"
        "link = socket.socket(socket.AF_UNIX); held = os.open(sys.argv[1], os.O_PATH); os.setuid(65534)\n"
        "link.connect(f'/proc/self/fd/{held}/control.sock')\n"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-c", script, directory], capture_output=True, text=True, timeout=30, check=False
    )
    assert "PermissionError" in done.stderr

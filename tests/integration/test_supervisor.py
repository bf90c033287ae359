"""Detached containers and their supervisor: exits, restarts, terminals, logs, adoption."""

import itertools
import os
import pathlib
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable

import pexpect
import pytest

from sysvisor_runc.kernel.syscall import syscall
from tests.support.bundle import Bundle
from tests.support.loops import LOOPS, require
from tests.support.runtime import Runtime, descriptors, supervisors, wait_until
from tests.support.supervised import alive, events, kill, kill_supervisor, known, status, wait_idle

NewBundle = Callable[..., Bundle]


def run(runtime: Runtime, bundle: Bundle, *flags: str, **popen: object) -> str:
    """`run --detach` a container; its id."""
    name = runtime.id()
    runtime("run", "--detach", *flags, "--bundle", bundle.path, name, **popen)  # type: ignore[arg-type]
    return name


@pytest.mark.parametrize("loop", LOOPS)
def test_an_exit_is_recorded(any_runtime: Runtime, new_bundle: NewBundle, loop: str) -> None:
    """The exit code of a detached container is known by `wait`, `state`, `list` and the events, on either loop."""
    require(loop)
    bundle = new_bundle().sh("sleep 0.3; exit 7")
    name = run(any_runtime, bundle, env=os.environ | {"SYSVISOR_RUNC_LOOP": loop})
    assert status(any_runtime)["loop"] == loop
    assert any_runtime("wait", name).stdout == "7\n"
    assert any_runtime("wait", name).stdout == "7\n"
    found = known(any_runtime, name)
    assert (found["exitCode"], found["exitSignal"], found["oomKilled"]) == (7, None, False)
    assert found["restartCount"] == 0
    header, row = any_runtime("list").stdout.splitlines()
    assert re.search(r"OWNER +EXIT +RESTARTS +UPTIME$", header)
    assert re.search(r"stopped .* 7 +0 +-$", row)
    told = [(event["type"], event["data"].get("code")) for event in events(any_runtime) if event["id"] == name]
    assert told == [("start", None), ("exit", 7)]


def test_a_signal_is_recorded(runtime: Runtime, new_bundle: NewBundle) -> None:
    """Who is killed has 128+n, and the signal beside it."""
    name = run(runtime, new_bundle("/bin/sleep", "1000"))
    assert known(runtime, name)["uptime"] >= 0
    runtime("kill", name, "KILL")
    assert runtime("wait", name).stdout == "137\n"
    assert known(runtime, name)["exitSignal"] == 9


def test_the_supervisor_keeps_nothing_of_its_starter(runtime: Runtime, new_bundle: NewBundle) -> None:
    """It has a session and cgroups of its own, / as its directory, nothing open of the caller's, and pid 1 as parent
    or whoever inherits orphans here."""
    with open(runtime.directory / "out", "wb") as out:
        inherited = os.dup(out.fileno())
        os.set_inheritable(inherited, True)
        name = run(runtime, new_bundle("/bin/sleep", "1000"), stdout=out, pass_fds=(inherited,))
        os.close(inherited)
    pid = status(runtime)["pid"]
    process = pathlib.Path(f"/proc/{pid}")
    assert os.getsid(pid) == pid
    assert os.readlink(process / "cwd") == "/"
    ours = [target for target in descriptors(pid).values() if target.startswith(str(runtime.directory))]
    assert [target for target in ours if not target.startswith(str(runtime.root))] == []
    own = pathlib.Path("/proc/self/cgroup").read_text()
    for line in (process / "cgroup").read_text().splitlines():
        assert "sysvisor-supervisor" in line or line in own.splitlines()
    assert "sysvisor-supervisor" in (process / "cgroup").read_text()
    assert runtime.state(name)["status"] == "running"


def test_an_idle_supervisor_ends(runtime: Runtime, new_bundle: NewBundle) -> None:
    """With nothing left to look after it goes, without a trace but its log and journal; the next one goes on."""
    name = run(runtime, new_bundle())
    runtime("wait", name)
    wait_idle(runtime)
    assert sorted(os.listdir(runtime.root / "@supervisor")) == ["events", "lock", "supervisor.log"]
    assert runtime("wait", name).stdout == "0\n"
    assert "no supervisor looks after" in runtime.fails("supervisor", "--status").stderr
    second = run(runtime, new_bundle())
    runtime("wait", second)
    kinds = [event["type"] for event in events(runtime) if event["type"] != "supervisor"]
    assert kinds == ["start", "exit", "start", "exit"]


def test_without_a_supervisor_nothing_remains(any_runtime: Runtime, new_bundle: NewBundle) -> None:
    """--no-supervisor, and `create`, are as runc's: no process, no file, no further column."""
    bundle = new_bundle("/bin/sleep", "1000")
    first, second = run(any_runtime, bundle, "--no-supervisor"), any_runtime.id()
    any_runtime("create", "--bundle", bundle.path, second)
    assert not (any_runtime.root / "@supervisor").exists()
    assert "supervision" not in any_runtime.state(first)
    assert any_runtime("list").stdout.splitlines()[0].endswith("OWNER")
    waiting = any_runtime.start_background("wait", first)
    wait_until(lambda: any("pidfd" in target for target in descriptors(waiting.process.pid).values()), 15)
    any_runtime("kill", first, "KILL")
    assert waiting.wait().stdout == "137\n"


# ---- restarts


def test_on_failure_restarts_in_its_place(any_runtime: Runtime, new_bundle: NewBundle) -> None:
    """A failing container is started again as often as allowed: same id, ids, cgroup; pid file and output go on."""
    bundle = new_bundle().sh("echo run; cat /proc/self/uid_map; sleep 0.1; exit 3")
    pid_file = any_runtime.directory / "pid"
    with open(any_runtime.directory / "out", "wb") as out:
        name = run(any_runtime, bundle, "--restart", "on-failure:2", "--pid-file", str(pid_file), stdout=out)
    before = any_runtime.state(name)["created"]
    wait_until(lambda: not known(any_runtime, name)["restarting"] and known(any_runtime, name)["restartCount"] == 2, 20)
    any_runtime.wait_status(name, "stopped")
    assert any_runtime("wait", name).stdout == "3\n"
    state = any_runtime.state(name)
    assert state["created"] == before
    told = [event["type"] for event in events(any_runtime) if event["id"] == name]
    assert told == ["start", "exit", "restart", "exit", "restart", "exit"]
    lines = (any_runtime.directory / "out").read_text().splitlines()
    assert lines.count("run") == 3
    assert len(set(lines)) == 2


def test_success_ends_on_failure(runtime: Runtime, new_bundle: NewBundle) -> None:
    """What ends well is not started again by on-failure, but by always."""
    name = run(runtime, new_bundle(), "--restart", "on-failure")
    runtime("wait", name)
    assert known(runtime, name)["restarting"] is False
    other = run(runtime, new_bundle().sh("sleep 0.1"), "--restart", "always")
    wait_until(lambda: known(runtime, other)["restartCount"] >= 2, 20)


def test_a_restart_is_of_the_same_container(runtime: Runtime, new_bundle: NewBundle) -> None:
    """It comes after a death of its own, in the same cgroups, with the configuration that the first start had."""
    bundle = new_bundle("/bin/sleep", "1000")
    name = run(runtime, bundle, "--restart", "unless-stopped")
    pid = runtime.state(name)["pid"]
    cgroups = pathlib.Path(f"/proc/{pid}/cgroup").read_text()
    assert name in cgroups
    bundle.run("/bin/false")
    kill(pid)
    wait_until(lambda: known(runtime, name)["restartCount"] == 1, 20)
    pid = runtime.wait_status(name, "running")["pid"]
    assert pathlib.Path(f"/proc/{pid}/cgroup").read_text() == cgroups
    wait_until(lambda: b"sleep" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes(), 20, "the program")


INHERITED = """
cat /proc/self/oom_score_adj /proc/self/personality /proc/self/limits >>/seen
nice >>/seen
echo end >>/seen
sleep 0.2; exit 1
"""


def test_a_restart_inherits_what_the_first_start_did(runtime: Runtime, new_bundle: NewBundle) -> None:
    """Limits, priority and the like, whatever those of the command were that has started the supervisor."""

    def another() -> None:
        os.nice(7)
        pathlib.Path("/proc/self/oom_score_adj").write_text("321")
        resource.setrlimit(resource.RLIMIT_STACK, (4 << 20, hard))
        syscall("personality", 0x40000)  # ADDR_NO_RANDOMIZE

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (321, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    run(runtime, new_bundle("/bin/sleep", "1000"), preexec_fn=another)
    status(runtime)
    bundle = new_bundle().sh(INHERITED)
    bundle.process.pop("rlimits", None)
    name = run(runtime, bundle.save(), "--restart", "on-failure:1", preexec_fn=lower)
    wait_until(lambda: known(runtime, name)["restartCount"] == 1, 20, "the next start")
    runtime("wait", name)
    first, again, rest = (bundle.rootfs / "seen").read_text().split("end\n")
    assert first == again
    assert re.search(r"open files +321 ", first)
    assert rest == ""


def test_kill_ends_for_good(runtime: Runtime, new_bundle: NewBundle) -> None:
    """Who kills a container by `kill` does not want it again."""
    name = run(runtime, new_bundle("/bin/sleep", "1000"), "--restart", "unless-stopped")
    runtime("kill", name, "KILL")
    runtime("wait", name)
    assert known(runtime, name)["restarting"] is False
    # Once nothing is left that it waits for, a supervisor goes.
    wait_idle(runtime)
    assert runtime.state(name)["status"] == "stopped"
    assert known(runtime, name)["restartCount"] == 0


def test_kill_ends_a_container_that_is_being_started(runtime: Runtime, new_bundle: NewBundle) -> None:
    """Killed while the next start is under way, when there is no init to get the signal, it does not come back."""
    gate, reached = runtime.directory / "gate", runtime.directory / "reached"
    bundle = new_bundle().sh("sleep 0.5; exit 1")
    script = f"[ -e {gate} ] || exit 0; touch {reached}; while [ -e {gate} ]; do sleep 0.02; done"
    bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    name = run(runtime, bundle.save(), "--restart", "always")
    gate.touch()
    try:
        wait_until(reached.exists, 20, "the next start")
        runtime("kill", name, "KILL", check=False)
    finally:
        gate.unlink()
    wait_idle(runtime)
    assert runtime.state(name)["status"] == "stopped"
    found = known(runtime, name)
    assert (found["exitCode"], found["restartCount"], found["restarting"]) == (1, 0, False)


def test_delete_ends_a_restarting_container(runtime: Runtime, new_bundle: NewBundle) -> None:
    """Deleted while it waits for its next start, it does not come back."""
    name = run(runtime, new_bundle("/bin/false"), "--restart", "always", "--restart-delay", "1s")
    wait_until(lambda: known(runtime, name)["restarting"], 20)
    runtime("delete", name)
    wait_idle(runtime)
    assert runtime.ids() == []


def test_the_annotation_asks_for_restarts(runtime: Runtime, new_bundle: NewBundle) -> None:
    """org.sysvisor.restart does what --restart does."""
    bundle = new_bundle("/bin/false")
    bundle.config["annotations"] = {"org.sysvisor.restart": "on-failure:1"}
    name = run(runtime, bundle.save())
    wait_until(lambda: known(runtime, name)["restartCount"] == 1 and not known(runtime, name)["restarting"], 20)
    bundle.config["annotations"] = {"org.sysvisor.restart": "sometimes"}
    failed = runtime.fails("run", "--detach", "--bundle", bundle.save().path, runtime.id())
    assert "'sometimes' is no restart policy" in failed.stderr


def test_changed_limits_outlive_a_restart(runtime: Runtime, new_bundle: NewBundle) -> None:
    """What `update` has set is set again."""
    name = run(runtime, new_bundle("/bin/sleep", "1000"), "--restart", "always")
    runtime("update", "--pids-limit", "77", name)
    kill(runtime.state(name)["pid"])
    wait_until(lambda: known(runtime, name)["restartCount"] == 1, 20)
    assert runtime("exec", name, "/bin/sh", "-c", "ulimit -p >/dev/null; echo up").stdout == "up\n"
    found = [path / "pids.max" for path in pathlib.Path("/sys/fs/cgroup").rglob(name)]
    assert "77" in [path.read_text().strip() for path in found if path.exists()]


@pytest.mark.parametrize(
    ("flags", "environment", "reason"),
    [
        (("--restart", "often"), {}, "is no restart policy"),
        (("--restart-delay", "1s"), {}, "needs --restart"),
        (("--restart", "always", "--no-supervisor"), {}, "cannot be used"),
        (("--restart", "always", "--pid-file", "pid"), {"INVOCATION_ID": "1"}, "systemd service"),
        (("--restart", "always", "--preserve-fds", "1"), {}, "--preserve-fds"),
    ],
)
def test_where_restarts_are_refused(
    runtime: Runtime, new_bundle: NewBundle, flags: tuple[str, ...], environment: dict[str, str], reason: str
) -> None:
    """A restart that cannot be, or would be behind somebody's back, is refused, and nothing is left."""
    bundle = new_bundle("/bin/sleep", "1000")
    extra = {"pass_fds": (3,)} if "--preserve-fds" in flags else {}
    if extra:
        os.dup2(os.open("/dev/null", os.O_RDONLY), 3)
    failed = runtime.fails(
        "run", "--detach", *flags, "--bundle", bundle.path, runtime.id(),
        env=os.environ | environment, cwd=runtime.directory, **extra,
    )  # fmt: skip
    assert reason in failed.stderr
    assert not runtime.root.exists() or runtime.ids() == []


# Makes itself the subreaper of a command, and then prints the parent of the process whose pid is in a file, and itself.
SUBREAPER = """
import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
code = subprocess.run(sys.argv[2:], stdin=subprocess.DEVNULL).returncode
if code == 0:
    print(open(f"/proc/{open(sys.argv[1]).read()}/status").read().partition("PPid:\\t")[2].split()[0], os.getpid())
sys.exit(code)
"""


def under_a_subreaper(runtime: Runtime, *flags: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    """`run --detach` by one that makes itself the parent of what is left behind."""
    file = runtime.directory / "pid"
    arguments = runtime.argv("run", "--detach", "--pid-file", file, *flags, runtime.id())
    command = ["/usr/bin/python3", "-c", SUBREAPER, str(file), *arguments]
    with open(runtime.directory / "out", "w+") as out, open(runtime.directory / "err", "w+") as err:
        done = subprocess.run(command, stdout=out, stderr=err, timeout=60, check=False)
        for stream in (out, err):
            stream.seek(0)
        return subprocess.CompletedProcess(command, done.returncode, out.read(), err.read())


@pytest.mark.parametrize("flags", [(), ("--no-supervisor",)], ids=["supervised", "alone"])
def test_init_goes_to_the_subreaper(runtime: Runtime, new_bundle: NewBundle, flags: tuple[str, ...]) -> None:
    """Supervised or not, init's parent is the nearest subreaper of the caller, as shims, conmon and systemd expect."""
    done = under_a_subreaper(runtime, *flags, "--bundle", new_bundle("/bin/sleep", "1000").path)
    assert done.returncode == 0, done.stderr
    parent, subreaper = done.stdout.split()
    assert parent == subreaper


def test_a_subreaper_keeps_its_containers(runtime: Runtime, new_bundle: NewBundle) -> None:
    """A caller that makes itself init's parent restarts it itself: a shim, conmon."""
    done = under_a_subreaper(runtime, "--restart", "always", "--bundle", new_bundle("/bin/true").path)
    assert done.returncode == 1
    assert "its subreaper" in done.stderr
    assert runtime.ids() == []


def test_restarts_in_the_foreground(any_runtime: Runtime, new_bundle: NewBundle) -> None:
    """`run --restart` does it itself: as often as allowed, and not after a signal that asks for the end."""
    bundle = new_bundle().sh("echo run; exit 3")
    done = any_runtime(
        "run", "--restart", "on-failure:2", "--restart-delay", "10ms", "--bundle", bundle.path, any_runtime.id(),
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "run\nrun\nrun\n")
    assert any_runtime.ids() == []
    bundle = new_bundle().sh("trap 'exit 5' TERM; echo run; while true; do sleep 0.05; done")
    running = any_runtime.start_background("run", "--restart", "always", "--bundle", bundle.path, any_runtime.id())
    wait_until(lambda: running.stdout == "run\n", 20)
    time.sleep(0.2)
    running.process.terminate()
    done = running.wait()
    assert (done.returncode, done.stdout) == (5, "run\n")
    assert any_runtime.ids() == []
    bundle = new_bundle().sh("echo run")
    running = any_runtime.start_background(
        "run", "--restart", "always", "--restart-delay", "1m", "--bundle", bundle.path, any_runtime.id()
    )
    wait_until(lambda: running.stdout == "run\n" and any_runtime.ids() == [], 20)
    time.sleep(0.3)
    running.process.terminate()
    assert running.wait().returncode == 143


def test_restarts_in_the_foreground_keep_nothing_open(runtime: Runtime, new_bundle: NewBundle) -> None:
    """However often it starts a container again, a command has no more open than the first time."""
    bundle = new_bundle().sh("echo run; while [ ! -e /go ]; do sleep 0.02; done; rm /go; exit 1")
    words = ("run", "--restart", "always", "--restart-delay", "10ms", "--bundle", bundle.path, runtime.id())
    running = runtime.start_background(*words)
    counts = []
    for number in range(1, 6):
        wait_until(lambda: running.stdout.count("run") == number, 30)  # noqa: B023  # called in this turn alone
        # The pipes of the launch are closed a moment after its program runs.
        wait_until(lambda: not any("pipe:" in one for one in descriptors(running.process.pid).values()), 30)
        counts.append(len(descriptors(running.process.pid)))
        (bundle.rootfs / "go").touch()
    assert counts == [counts[0]] * 5


@pytest.mark.parametrize("command", [("kill",), ("kill", "KILL"), ("delete", "--force")])
def test_others_end_what_restarts_in_the_foreground(
    runtime: Runtime, new_bundle: NewBundle, command: tuple[str, ...]
) -> None:
    """Whoever kills or deletes a container does not want it again, whatever command starts it again."""
    bundle = new_bundle().sh("trap 'exit 5' TERM; echo run; while true; do sleep 0.05; done")
    name = runtime.id()
    running = runtime.start_background("run", "--restart", "always", "--bundle", bundle.path, name)
    wait_until(lambda: running.stdout == "run\n", 20)
    verb, *rest = command
    runtime(verb, *(rest if verb == "delete" else []), name, *(rest if verb == "kill" else []))
    done = running.wait()
    assert (done.returncode, done.stdout) == (5 if command == ("kill",) else 137, "run\n")
    assert runtime.ids() == []


# ---- terminals


def test_a_detached_terminal_is_kept(runtime: Runtime, new_bundle: NewBundle) -> None:
    """Its output is logged, `attach` uses it, its size follows, Ctrl-P Ctrl-Q leaves it, its end is its exit code."""
    bundle = new_bundle().sh("echo first; read line; echo got $line; stty size; read line; exit 5")
    bundle.process["terminal"] = True
    name = run(runtime, bundle.save())
    wait_until(lambda: b"first" in runtime("logs", name).stdout.encode(), 15)
    command = runtime.argv("attach", name)
    child = pexpect.spawn(command[0], command[1:], dimensions=(33, 99), timeout=20)
    child.sendline("one")
    child.expect("got one")
    child.expect("33 99")
    child.send("\x10\x11")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert runtime.state(name)["status"] == "running"
    following = runtime.start_background("logs", "--follow", name)
    wait_until(lambda: "33 99" in following.stdout, 15)
    child = pexpect.spawn(command[0], command[1:], timeout=20)
    child.sendline("two")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 5
    assert following.wait().stdout.splitlines()[-1] == "two"
    text = runtime("logs", name).stdout
    assert text.splitlines()[0] == "first"
    assert "got one" in text
    assert runtime("logs", "--since", "1h", name).stdout == text
    assert runtime("logs", "--since", "2040-01-01T00:00:00Z", name).stdout == ""
    assert "is no moment" in runtime.fails("logs", "--since", "soon", name).stderr


def test_attach_and_logs_say_what_is_missing(runtime: Runtime, new_bundle: NewBundle) -> None:
    """A container without a terminal has none to attach to."""
    name = run(runtime, new_bundle("/bin/sleep", "1000"))
    status(runtime)
    assert "no terminal of container" in runtime.fails("attach", name).stderr
    assert "no terminal of container" in runtime.fails("logs", name).stderr
    assert "does not exist" in runtime.fails("attach", "nobody").stderr
    assert "does not exist" in runtime.fails("wait", "nobody").stderr


# ---- its own end


def test_containers_outlive_their_supervisor(runtime: Runtime, new_bundle: NewBundle) -> None:
    """Told to end, it ends in order; the next one adopts what runs, and has the exit."""
    name = run(runtime, new_bundle("/bin/sleep", "1000"))
    pid = status(runtime)["pid"]
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not alive(pid), 15)
    assert runtime.state(name)["status"] == "running"
    assert not (runtime.root / "@supervisor/control.sock").exists()
    other = run(runtime, new_bundle())
    assert status(runtime)["pid"] != pid
    runtime("wait", other)
    runtime("kill", name, "KILL")
    assert runtime("wait", name).stdout == "137\n"


def test_killed_under_load_it_loses_nothing(runtime: Runtime, new_bundle: NewBundle) -> None:
    """SIGKILL with restarts and terminals under way: all run on, a successor takes over, nobody is started twice."""
    forever = run(runtime, new_bundle("/bin/sleep", "1000"), "--restart", "always")
    bundle = new_bundle().sh("trap 'echo hangup' HUP; while true; do echo tick; sleep 0.05; done")
    bundle.process["terminal"] = True
    terminal = run(runtime, bundle.save())
    failing = run(runtime, new_bundle().sh("sleep 0.2; exit 1"), "--restart", "always")
    pids = {name: runtime.state(name)["pid"] for name in (forever, terminal)}
    wait_until(lambda: known(runtime, failing)["restartCount"] >= 1, 20)
    first = kill_supervisor(runtime)
    wait_until(lambda: supervisors(str(runtime.root)), 20)
    assert status(runtime, 30)["pid"] != first
    count = known(runtime, failing)["restartCount"]
    wait_until(lambda: known(runtime, failing)["restartCount"] > count, 30, "another restart")
    wait_until(lambda: status(runtime)["terminals"] == 1, 30, "the terminal's return")
    assert {name: runtime.state(name)["pid"] for name in pids} == pids
    text = runtime("logs", terminal).stdout
    assert "hangup" not in text
    length = len(text)
    wait_until(lambda: len(runtime("logs", terminal).stdout) > length, 20, "further output")
    ends = [event["type"] for event in events(runtime) if event["id"] == failing]
    assert all(first != second for first, second in itertools.pairwise(ends)), ends


def test_a_foreground_supervisor(runtime: Runtime, new_bundle: NewBundle) -> None:
    """`supervisor` serves in the foreground, alone, until it is stopped."""
    foreground = runtime.start_background("supervisor")
    pid = status(runtime)["pid"]
    assert pid == foreground.process.pid
    assert "looks after" in runtime.fails("supervisor").stderr
    name = run(runtime, new_bundle("/bin/false"), "--restart", "on-failure:1")
    wait_until(lambda: known(runtime, name)["restartCount"] == 1 and not known(runtime, name)["restarting"], 20)
    assert runtime("supervisor", "--status").json["pid"] == pid
    runtime("supervisor", "--stop")
    assert foreground.wait().returncode == 0

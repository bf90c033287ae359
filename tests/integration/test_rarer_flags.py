"""Flags that no other test has use for, each doing what its help says."""

import os
import pathlib
import re
import signal
from collections.abc import Callable

import pytest

from tests.support.bundle import Bundle
from tests.support.handmade import container
from tests.support.runtime import Runtime, wait_until
from tests.support.terminal import ConsoleSocket

MIB = 1 << 20


@pytest.fixture
def sleeper(plain_runtime: Runtime, bundle: Bundle) -> str:
    """A container that only waits."""
    name = plain_runtime.id()
    plain_runtime("run", "--detach", "--bundle", bundle.run("/bin/sleep", "1000").path, name)
    return name


def test_pidfd_sockets(plain_runtime: Runtime, new_bundle: Callable[..., Bundle]) -> None:
    """`create`, `run` and `exec` send a pidfd of their process to --pidfd-socket; it can be signalled by it."""
    bundle = new_bundle("/bin/sleep", "1000").save()
    name = ""
    for verb in ("create", "run", "exec"):
        directory = plain_runtime.directory / verb
        directory.mkdir()
        listener = ConsoleSocket(directory)
        words: list[str | os.PathLike[str]]
        words = ["--pidfd-socket", listener.path, "--pid-file", directory / "pid"]
        if verb == "exec":
            plain_runtime("exec", "--detach", *words, name, "/bin/sleep", "1000")
        else:
            name = plain_runtime.id()
            detach = ["--detach"] if verb == "run" else []
            plain_runtime(verb, *detach, *words, "--bundle", bundle.path, name)
        _, fd = listener.receive()
        listener.close()
        try:
            pid = re.search(r"^Pid:\t(\d+)$", pathlib.Path(f"/proc/self/fdinfo/{fd}").read_text(), re.M)
            assert pid is not None and pid[1] == (directory / "pid").read_text()
            signal.pidfd_send_signal(fd, 0)
        finally:
            os.close(fd)


def test_what_exec_is_told(plain_runtime: Runtime, sleeper: str) -> None:
    """--env, --additional-gids and --no-new-privs reach the process; --process-label needs SELinux."""
    flags = ["--env", "A=b c", "--env=HOME=/x", "--additional-gids", "7", "-g", "9", "--no-new-privs"]
    script = 'echo "$A $HOME"; id -G; grep NoNewPrivs /proc/self/status'
    said = plain_runtime("exec", *flags, sleeper, "/bin/sh", "-c", script).stdout.splitlines()
    assert said == ["b c /x", "0 7 9", "NoNewPrivs:\t1"]
    if not pathlib.Path("/sys/fs/selinux/enforce").exists():
        refused = plain_runtime.fails("exec", "--process-label", "a:b:c:s0", sleeper, "/bin/true").stderr
        assert "selinux" in refused.lower()


def test_exec_in_a_paused_container(plain_runtime: Runtime, sleeper: str) -> None:
    """Refused, but with --ignore-paused the process is there and runs once the container does."""
    plain_runtime("pause", sleeper)
    assert "--ignore-paused" in plain_runtime.fails("exec", sleeper, "/bin/true").stderr
    joining = plain_runtime.start_background("exec", "--ignore-paused", sleeper, "/bin/echo", "awake")
    plain_runtime("resume", sleeper)
    result = joining.wait()
    assert (result.returncode, result.stdout) == (0, "awake\n")


@pytest.mark.parametrize("verb", ["create", "run"])
def test_credentials(runtime: Runtime, bundle: Bundle, verb: str) -> None:
    """--set-credential and --load-credential are files for init alone, in the directory that it is told of."""
    (runtime.directory / "secret").write_bytes(b"from a file")
    bundle.sh('cd "$CREDENTIALS_DIRECTORY" && cat word file >/said && stat -c %a . >>/said')
    (bundle.rootfs / "said").touch(mode=0o666)
    (bundle.rootfs / "said").chmod(0o666)
    flags = ["--set-credential", "word:a word, ", "--load-credential", f"file:{runtime.directory / 'secret'}"]
    name = runtime.id()
    runtime(verb, *flags, "--bundle", bundle.path, name)
    if verb == "create":
        runtime("start", name)
        runtime.wait_status(name, "stopped", 30)
    assert (bundle.rootfs / "said").read_text() == "a word, from a file700\n"
    refused = runtime.fails("run", "--load-credential", "x:/no/such", "--bundle", bundle.path, runtime.id()).stderr
    assert "--load-credential: read '/no/such': no such file" in refused


def test_a_supervisor_that_lingers(runtime: Runtime) -> None:
    """With --linger it ends by itself once there has been nothing to look after for so long."""
    runtime.root.mkdir(exist_ok=True)
    supervisor = runtime.start_background("supervisor", "--linger", "200ms")
    assert supervisor.wait(60).returncode == 0


def test_limits_of_a_running_container(runtime: Runtime) -> None:
    """The flags of `update` for what is seldom changed, as far as this kernel has what they change."""
    spec: dict[str, object]
    spec = {"linux": {"namespaces": [{"type": "pid"}], "resources": {"cpu": {"quota": 50000, "period": 100000}}}}
    with container(runtime, spec) as one:

        def value(v1: str, v2: str) -> str:
            name = v2 if one.manager.v2 else v1
            path = one.manager.paths.get("unified" if one.manager.v2 else v1.partition(".")[0])
            file = pathlib.Path(path or "/none", name)
            return file.read_text().strip() if file.exists() else ""

        def changed(flag: str, text: str, v1: str, v2: str, wanted: str) -> None:
            if value(v1, v2):
                runtime("update", flag, text, one.id)
                assert value(v1, v2) == wanted

        changed("--memory-reservation", "32M", "memory.soft_limit_in_bytes", "memory.low", str(32 * MIB))
        changed("--cpu-burst", "20000", "cpu.cfs_burst_us", "cpu.max.burst", "20000")
        changed("--cpuset-mems", "0", "cpuset.mems", "cpuset.mems", "0")
        changed("--cpu-rt-period", "900000", "cpu.rt_period_us", "cpu.none", "900000")
        if value("cpu.rt_runtime_us", "cpu.none"):
            # What the cgroup above may use at most.
            pathlib.Path(one.manager.paths["cpu"]).parent.joinpath("cpu.rt_runtime_us").write_text("10000")
        changed("--cpu-rt-runtime", "5000", "cpu.rt_runtime_us", "cpu.none", "5000")
        changed("--cpu-idle", "1", "cpu.idle", "cpu.idle", "1")
        assert "are ignored" in runtime("update", "--kernel-memory-tcp", "1M", one.id).stderr
        assert "not enabled" in runtime.fails("update", "--mem-bw-schema", "MB:0=50", one.id).stderr


def test_no_orphans_for_the_command(plain_runtime: Runtime, bundle: Bundle) -> None:
    """In the foreground the command adopts what the container leaves behind on the host, unless --no-subreaper."""
    bundle.linux["namespaces"] = [one for one in bundle.linux["namespaces"] if one["type"] != "pid"]
    bundle.sh("(sleep 1000 & echo $! >/new) & wait; mv /new /orphan; sleep 1000")
    found = {}
    for flags in ((), ("--no-subreaper",)):
        (bundle.rootfs / "orphan").unlink(missing_ok=True)
        name = plain_runtime.id()
        command = plain_runtime.start_background("run", *flags, "--bundle", bundle.path, name)
        orphan = _orphan(bundle)
        found[flags] = _parent(orphan) == str(command.process.pid)
        plain_runtime("kill", name, "KILL")
        command.wait()
    assert found == {(): True, ("--no-subreaper",): False}


def _orphan(bundle: Bundle) -> str:
    """The process whose parent has ended by now: the file with its pid has been moved to its place after that."""
    place = bundle.rootfs / "orphan"
    wait_until(place.exists, 30, "an orphan")
    return place.read_text().strip()


def _parent(pid: str) -> str:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return status.partition("PPid:\t")[2].partition("\n")[0]

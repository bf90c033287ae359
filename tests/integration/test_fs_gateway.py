"""The gateway of sysvisor-fs, which speaks gRPC, and the control socket, over which calls come to the daemon itself."""

import contextlib
import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.fs_daemon import FsDaemon
from tests.support.runtime import SOURCE, wait_until

KILLS = 4


@pytest.fixture
def daemon(tmp_path: pathlib.Path) -> Iterator[FsDaemon]:
    """One that runs."""
    daemon = FsDaemon(tmp_path)
    daemon.start()
    yield daemon
    daemon.end()


class Caller:
    """A client as the supervisor is one, which makes calls until it is told to stop."""

    def __init__(self, daemon: FsDaemon) -> None:
        argv = [sys.executable, str(SOURCE / "tests/support/fs_caller.py"), f"unix:{daemon.run_dir}/sysvisorfs.sock"]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def more(self, count: int) -> None:
        """Wait for so many rounds of calls."""
        assert self._process.stdout is not None
        for _ in range(count):
            assert self._process.stdout.readline() == "round\n"

    def end(self) -> str:
        """What has gone wrong."""
        said, _ = self._process.communicate("end\n", timeout=60)
        return said.replace("round\n", "")

    def kill(self) -> None:
        """Whatever it does."""
        self._process.kill()
        self._process.communicate(timeout=60)


@pytest.fixture
def caller(daemon: FsDaemon) -> Iterator[Caller]:
    """A client of the daemon."""
    caller = Caller(daemon)
    yield caller
    caller.kill()


def gateway(daemon: FsDaemon) -> int:
    """Its pid; 0 while there is none."""
    pid = daemon.status()["gatewayPid"]
    assert isinstance(pid, int)
    return pid


def another(daemon: FsDaemon, than: int) -> int:
    """The pid of the next one."""
    found: list[int] = []

    def there() -> bool:
        with contextlib.suppress(OSError):  # a daemon that has been killed
            found.append(gateway(daemon))
        return bool(found) and found[-1] not in (0, than)

    wait_until(there, 60, "another gateway")
    return found[-1]


def test_killed_under_calls(daemon: FsDaemon, caller: Caller) -> None:
    """Nobody speaks gRPC until somebody calls; killed again and again, it costs a caller no call and a reader nothing.

    The same for the daemon, which takes it along.
    """
    assert gateway(daemon) == 0
    daemon.register("read")
    [tree] = daemon.trees("read", "identity")
    file = pathlib.Path(f"/proc/self/fd/{tree}")
    serving, pid = daemon.pid(), 0
    for _ in range(KILLS):
        pid = another(daemon, pid)
        caller.more(3)
        os.kill(pid, signal.SIGKILL)
        assert file.read_text() == "read 100000\n"
    assert daemon.pid() == serving
    pid = another(daemon, pid)
    daemon.wait_for_another(daemon.kill())
    another(daemon, pid)
    wait_until(lambda: not pathlib.Path(f"/proc/{pid}").exists(), 30, "an end of the old gateway")
    caller.more(3)
    assert file.read_text() == "read 100000\n"
    os.close(tree)
    assert caller.end() == ""
    assert [one["id"] for one in daemon.status()["containers"]] == ["read"]


def test_out_of_descriptors(daemon: FsDaemon) -> None:
    """Peers that cannot be let in wait without the daemon turning in circles, and are answered once they can be."""
    pid = daemon.pid()
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    limit = len(os.listdir(f"/proc/{pid}/fd")) + 4
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    with contextlib.ExitStack() as peers:
        waiting = [peers.enter_context(daemon.connect()) for _ in range(12)]
        wait_until(lambda: "nobody can connect: too many open files" in daemon.log().lower(), 10, "a complaint")
        began, used = time.monotonic(), cpu_seconds(pid)
        wait_until(lambda: time.monotonic() - began > 1, 10)
        assert cpu_seconds(pid) - used < 0.5
        assert daemon.log().count("nobody can connect") == 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        for peer in waiting:
            peer.send(b'{"op": "served"}')
            assert json.loads(peer.recv(4096)) == {"ok": True, "ids": []}


def cpu_seconds(pid: int) -> float:
    """How long a process has run (proc_pid_stat(5), fields 14 and 15)."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_health_is_the_daemons(daemon: FsDaemon) -> None:
    """A daemon that does not answer is not well, whoever asks or watches gets to know, and it recovers."""
    argv = [sys.executable, str(SOURCE / "tests/support/fs_client.py"), f"unix:{daemon.run_dir}/sysvisorfs.sock"]
    with subprocess.Popen([*argv, "health"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:

        def told() -> dict[str, Any]:
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write("\n")
            client.stdin.flush()
            found: dict[str, Any] = json.loads(client.stdout.readline())
            return found

        try:
            assert told()["checked"] == "SERVING"
            pid = daemon.pid()
            os.kill(pid, signal.SIGSTOP)
            try:
                assert told()["checked"] == "NOT_SERVING"
                wait_until(lambda: told()["watched"] == ["SERVING", "NOT_SERVING"], 20)
            finally:
                os.kill(pid, signal.SIGCONT)
            assert told()["checked"] == "SERVING"
            wait_until(lambda: told()["watched"][2:] == ["SERVING"], 20)
            client.communicate("", timeout=30)
        finally:
            client.kill()


def test_gateway_that_hangs(daemon: FsDaemon, caller: Caller) -> None:
    """Readers and launches do without it, and the daemon ends all the same."""
    pid = another(daemon, 0)
    os.kill(pid, signal.SIGSTOP)
    daemon.register("read")
    [tree] = daemon.trees("read", "identity")
    assert pathlib.Path(f"/proc/self/fd/{tree}").read_text() == "read 100000\n"
    os.close(tree)
    daemon.stop()
    assert not pathlib.Path(f"/proc/{pid}").exists()


# ---- the control socket


def ask(link: socket.socket, **request: Any) -> dict[str, Any]:
    """An answer."""
    link.send(json.dumps(request).encode())
    answer: dict[str, Any] = json.loads(link.recv(1 << 16))
    return answer


def ids(daemon: FsDaemon) -> list[str]:
    """Of all containers, the announced ones included."""
    return [one["id"] for one in daemon.status()["containers"]]


def test_what_is_held_is_forgotten_with_its_launch(daemon: FsDaemon) -> None:
    """Who hangs up takes back what it has announced to hold, and neither what is registered nor anybody else's."""
    registration = {"op": "register", "initPid": os.getpid(), "uid": [100000, 65536], "gid": [100000, 65536]}
    with daemon.connect() as launch, daemon.connect() as other:
        assert ask(launch, op="preregister", id="lost", hold=True)["mountpoint"] == str(daemon.mountpoint)
        ask(launch, op="preregister", id="kept", hold=True)
        assert ask(launch, id="kept", **registration) == {"ok": True}
        ask(launch, op="preregister", id="announced")
        ask(launch, op="preregister", id="replaced", hold=True)
        ask(other, op="unregister", id="replaced")
        ask(other, op="preregister", id="replaced", hold=True)
        assert ids(daemon) == ["lost", "kept", "announced", "replaced"]
        launch.close()
        wait_until(lambda: ids(daemon) == ["kept", "announced", "replaced"], 20, "the end of what was held")


def test_asked_again(daemon: FsDaemon) -> None:
    """What a call had done before its answer was lost is no failure; what somebody else has done is."""
    registration = {"op": "register", "id": "one", "uid": [100000, 65536], "gid": [100000, 65536]}
    other = subprocess.Popen(["sleep", "1000"])
    try:
        with daemon.connect() as link:
            assert ask(link, op="preregister", id="one")["ok"]
            assert ask(link, op="preregister", id="one")["code"] == "ALREADY_EXISTS"
            assert ask(link, op="preregister", id="one", again=True)["ok"]
            assert ask(link, initPid=os.getpid(), **registration)["ok"]
            assert ask(link, initPid=os.getpid(), **registration)["code"] == "ALREADY_EXISTS"
            assert ask(link, initPid=os.getpid(), again=True, **registration)["ok"]
            assert ask(link, initPid=other.pid, again=True, **registration)["code"] == "ALREADY_EXISTS"
            assert ask(link, op="preregister", id="one", again=True)["code"] == "ALREADY_EXISTS"
    finally:
        other.kill()
        other.wait(30)

"""Checkpoints of what is connected: memory that follows later, open connections, cgroups in each of criu's ways."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support import criu
from tests.support.bundle import Bundle
from tests.support.criu import COUNTER, count, counts_on, images, start_counter
from tests.support.runtime import Runtime, wait_until

pytestmark = pytest.mark.debian("criu")

Words = list[str | os.PathLike[str]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A criu for this machine."""
    return criu.program(tmp_path_factory.mktemp("criu"))


@pytest.fixture
def plain_criu(plain_runtime: Runtime, program: str) -> Runtime:
    """A plain runtime with criu."""
    plain_runtime.flags = ("--criu", program, *plain_runtime.flags)
    return plain_runtime


def save_with_connections(runtime: Runtime, name: str) -> Words:
    """Checkpoint with --tcp-established; the flags for restore. Skips where the kernel cannot."""
    flags: Words = ["--tcp-established", "--image-path", images(runtime)]
    done = runtime("checkpoint", *flags, name, check=False)
    if done.returncode != 0 and "Connected TCP socket" not in done.stderr:
        pytest.skip(f"{done.stderr.strip()}; to force it: make test-vm")
    assert done.returncode == 0, done
    return flags


def test_a_connection_inside(plain_criu: Runtime, bundle: Bundle) -> None:
    """An open connection is a reason to refuse, told in criu's words, unless --tcp-established has it saved as well."""
    bundle.sh(f"sleep 1000 | nc -l -p 1234 & sleep 0.5; sleep 1000 | nc 127.0.0.1 1234 & {COUNTER}")
    name = plain_criu.id()
    plain_criu("run", "--detach", "--bundle", bundle.path, name)
    counts_on(bundle, 1)
    wait_until(lambda: "ESTABLISHED" in plain_criu("exec", name, "netstat", "-tn").stdout, 20, "a connection")
    refused = plain_criu.fails("checkpoint", "--image-path", images(plain_criu), name).stderr
    assert "Connected TCP socket" in refused and "dump.log" in refused
    counts_on(bundle, count(bundle))
    flags = save_with_connections(plain_criu, name)
    plain_criu("restore", "--detach", *flags, "--bundle", bundle.path, name)
    assert "ESTABLISHED" in plain_criu("exec", name, "netstat", "-tn").stdout


@pytest.fixture
def wire() -> Iterator[str]:
    """The path of a network namespace with the address 198.51.100.2, wired to the host, which is 198.51.100.1 there."""
    name = f"svt{os.getpid()}"
    commands = (
        f"netns add {name}",
        f"link add {name} type veth peer name eth0 netns {name}",
        f"address add 198.51.100.1/30 dev {name}",
        f"link set {name} up",
        f"-n {name} address add 198.51.100.2/30 dev eth0",
        f"-n {name} link set eth0 up",
    )
    try:
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True)
        yield f"/run/netns/{name}"
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_a_connection_to_outside(plain_criu: Runtime, bundle: Bundle, wire: str) -> None:
    """A peer outside sees its connection stand still while the container is away, and then go on where it was."""
    next(entry for entry in bundle.linux["namespaces"] if entry["type"] == "network")["path"] = wire
    bundle.sh("i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done | nc 198.51.100.1 4321")
    name = plain_criu.id()
    with socket.create_server(("198.51.100.1", 4321)) as server:
        server.settimeout(30)
        plain_criu("run", "--detach", "--bundle", bundle.path, name)
        connection, _ = server.accept()
    connection.settimeout(60)
    with connection, connection.makefile() as lines:
        seen = [int(lines.readline()) for _ in range(5)]
        flags = save_with_connections(plain_criu, name)
        assert name not in plain_criu.ids()
        plain_criu("restore", "--detach", *flags, "--bundle", bundle.path, name)
        seen += [int(lines.readline()) for _ in range(200)]
    assert seen == list(range(1, len(seen) + 1))


# A connection from the inside of the wire to its end here.
CONNECT = "import socket; socket.create_connection(('198.51.100.1', 4321), timeout=5)"


def test_a_given_network_stays_open(plain_criu: Runtime, bundle: Bundle, wire: str) -> None:
    """Whoever shares the network namespace, as the containers of a pod do, goes on with it after a checkpoint."""
    next(entry for entry in bundle.linux["namespaces"] if entry["type"] == "network")["path"] = wire
    name = start_counter(plain_criu, bundle)
    flags: Words = ["--image-path", images(plain_criu)]
    connect = ["ip", "netns", "exec", wire.rpartition("/")[2], sys.executable, "-c", CONNECT]
    with socket.create_server(("198.51.100.1", 4321)):
        assert subprocess.run(connect).returncode == 0
        plain_criu("checkpoint", *flags, name)
        assert subprocess.run(connect).returncode == 0
        plain_criu("restore", "--detach", *flags, "--bundle", bundle.path, name)
        assert subprocess.run(connect).returncode == 0


@pytest.mark.parametrize("mode", ["full", "ignore"])
def test_cgroups(plain_criu: Runtime, bundle: Bundle, mode: str) -> None:
    """In criu's other ways with cgroups, what is restored is where the runtime looks for it, with its limits."""
    bundle.linux["resources"] = {"pids": {"limit": 77}}
    assert {"type": "cgroup"} in bundle.linux["namespaces"]
    name = start_counter(plain_criu, bundle)
    flags: Words = ["--manage-cgroups-mode", mode, "--image-path", images(plain_criu)]
    plain_criu("checkpoint", *flags, name)
    seen = count(bundle)
    plain_criu("restore", "--detach", *flags, "--bundle", bundle.path, name)
    counts_on(bundle, seen)
    assert str(plain_criu.state(name)["pid"]) in plain_criu("ps", "--format", "json", name).stdout
    assert plain_criu("events", "--stats", name).json["data"]["pids"]["limit"] == 77
    # It is the root of what it sees, as before.
    assert {
        line.rpartition(":")[2] for line in plain_criu("exec", name, "cat", "/proc/self/cgroup").stdout.split()
    } == {"/"}
    below = plain_criu("exec", name, "find", "/sys/fs/cgroup", "-mindepth", "2", "-type", "d").stdout
    assert below == ""
    plain_criu("pause", name)
    plain_criu("resume", name)
    counts_on(bundle, count(bundle))


def test_what_could_not_be_restored(runtime: Runtime, bundle: Bundle, program: str) -> None:
    """criu restores no cgroup namespace where it ignores cgroups: told of a system container before it is saved."""
    runtime.flags = ("--criu", program, *runtime.flags)
    name = start_counter(runtime, bundle)
    flags: Words = ["--manage-cgroups-mode", "ignore", "--image-path", images(runtime)]
    refused = runtime.fails("checkpoint", *flags, name).stderr
    assert "cgroup namespace" in refused and "leave the flag out" in refused
    assert not images(runtime).exists()
    counts_on(bundle, count(bundle))


def test_strict_cgroups(plain_criu: Runtime, bundle: Bundle) -> None:
    """criu's strict way wants no cgroup to be there before it, and the runtime makes them: refused, nothing is left."""
    name = start_counter(plain_criu, bundle)
    flags: Words = ["--manage-cgroups-mode", "strict", "--image-path", images(plain_criu)]
    plain_criu("checkpoint", *flags, name)
    refused = plain_criu.fails("restore", "--detach", *flags, "--bundle", bundle.path, name).stderr
    assert "restore of existing cgroups" in refused
    assert plain_criu.ids() == []


def unused_port() -> int:
    """A TCP port of the loopback that nobody has."""
    import socket

    with socket.socket() as link:
        link.bind(("127.0.0.1", 0))
        port: int = link.getsockname()[1]
        return port


def needs_large_pipes() -> None:
    """Skip where criu cannot make the pipe from which it serves pages."""
    status = pathlib.Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    if not effective >> 24 & 1 and int(pathlib.Path("/proc/sys/fs/pipe-max-size").read_text()) < 4 << 20:
        pytest.skip("root lacks CAP_SYS_RESOURCE; to force it: make test-vm, or sysctl fs.pipe-max-size=4194304")


class Moving:
    """A container that is being moved under another name, its memory to follow.

    Attributes: `saving`: the checkpoint, which serves pages; `fetching`: criu, which asks for them; `flags` of restore.
    """

    def __init__(self, runtime: Runtime, name: str, program: str) -> None:
        """Wait until all but the memory is saved and somebody is there to fetch that. Skips without userfaultfd."""
        self.top, port = images(runtime), unused_port()
        work = runtime.directory / "work"
        work.mkdir()
        read, write = os.pipe()
        self.flags: Words = ["--lazy-pages", "--manage-cgroups-mode", "ignore", "--image-path", self.top]
        self.saving = runtime.start_background(
            "checkpoint", *self.flags, "--page-server", f"127.0.0.1:{port}", "--status-fd", str(write),
            "--work-path", work, name, pass_fds=(write,),
        )  # fmt: skip
        os.close(write)
        with open(read, "rb") as status:
            ready = status.read(1)
        if ready != b"\0":
            done = self.saving.wait()
            if "lacks lazy_pages" in done.stderr:
                pytest.skip("no userfaultfd here; to force it: make test-vm")
            pytest.fail(repr(done))
        server = ["--page-server", "--address", "127.0.0.1", "--port", str(port)]
        words = [program, "lazy-pages", *server, "--images-dir", str(self.top), "--work-dir", str(self.top), "-v4"]
        self.fetching = subprocess.Popen([*words, "-o", "lazy.log"], stdin=subprocess.DEVNULL)
        wait_until((self.top / "lazy-pages.socket").exists, 20, "the socket that restore asks for pages")

    def __enter__(self) -> "Moving":
        return self

    def __exit__(self, *failure: object) -> None:
        self.fetching.kill()
        self.fetching.wait()


def test_lazy_pages(plain_criu: Runtime, bundle: Bundle, program: str) -> None:
    """The container runs on elsewhere at once, and its memory follows over the network; then the old one is gone."""
    needs_large_pipes()
    name, other = start_counter(plain_criu, bundle), plain_criu.id()
    with Moving(plain_criu, name, program) as moving:
        seen = count(bundle)
        plain_criu("restore", "--detach", *moving.flags, "--bundle", bundle.path, other)
        counts_on(bundle, seen)
        assert moving.fetching.wait(60) == 0, (moving.top / "lazy.log").read_text()[-2000:]
        assert moving.saving.wait(60).returncode == 0
    assert plain_criu.ids() == [other]
    assert "ransferred" in (moving.top / "lazy.log").read_text()
    counts_on(bundle, count(bundle))


def test_pages_that_never_come(plain_criu: Runtime, bundle: Bundle, program: str) -> None:
    """When the server of pages dies, restore ends and says so; criu alone would wait for ever."""
    name, other = start_counter(plain_criu, bundle), plain_criu.id()
    with Moving(plain_criu, name, program) as moving:
        pid = moving.saving.process.pid
        for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        moving.saving.wait()
        done = plain_criu("restore", "--detach", *moving.flags, "--bundle", bundle.path, other, check=False)
    # Where it was restored before anybody missed a page, that is no failure of the command.
    assert done.returncode == 0 or "restore.log" in done.stderr, done

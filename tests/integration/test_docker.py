"""Docker drives our runtime through its own command line, for plain containers and for system containers."""

import json
import pathlib
import subprocess
import tarfile
from collections.abc import Iterator

import pexpect
import pytest

from tests.support.clients import IMAGE, Client, docker_daemon
from tests.support.runtime import wait_until

pytestmark = [pytest.mark.slow]


class Docker:
    """`docker` with containers of one mode: `run` and `start` add the runtime and the image."""

    def __init__(self, client: Client, mode: str) -> None:
        self.client = client
        self.mode = mode

    def __call__(self, *args: str, check: bool = True, text: str = "") -> str:
        return self.client(*args, check=check, text=text).stdout.strip()

    def run(self, *args: str, sh: str, check: bool = True, text: str = "") -> str:
        """Run a shell script in a container to its end; what it prints."""
        options = ["run", "--rm", "--runtime", self.mode, *args, IMAGE, "sh", "-c", sh]
        result = self.client(*options, check=check, text=text)
        return (result.stdout if check else result.stdout + result.stderr).strip()

    def start(self, *args: str, sh: str = "trap 'exit 0' TERM; while :; do sleep 0.2; done") -> str:
        """Start a container in the background; its name."""
        name = self.client.name()
        self("run", "-d", "--runtime", self.mode, "--name", name, *args, IMAGE, "sh", "-c", sh)
        return name

    def inspect(self, name: str, template: str) -> str:
        return self("inspect", "--format", template, name)

    def wait_for(self, name: str, template: str, value: str) -> None:
        wait_until(lambda: self.inspect(name, template) == value, 30, f"{template} = {value}")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    directory = tmp_path_factory.mktemp("docker")
    for path in (directory, *directory.parents[:2]):
        path.chmod(0o755)
    with docker_daemon(directory, "syscont") as client:
        yield client


@pytest.fixture(params=["plain", "syscont"])
def docker(request: pytest.FixtureRequest, daemon: Client) -> Docker:
    return Docker(daemon, request.param)


@pytest.fixture
def syscont(daemon: Client) -> Docker:
    return Docker(daemon, "syscont")


def test_runs(docker: Docker) -> None:
    """Output, exit code, standard input and user are the client's; the files belong to whom they do in the image."""
    script = "echo out; echo err >&2; cat; id -u; stat -c %u /bin /home"
    assert docker.run("-i", sh=script, text="in\n").split("\n") == ["out", "in", "0", "0", "1000"]
    failing = ["run", "--rm", "--runtime", docker.mode, IMAGE, "sh", "-c", "exit 7"]
    assert docker.client(*failing, check=False).returncode == 7
    assert docker.run("-u", "1000:1000", sh="id -u; touch /tmp/x; stat -c %u:%g /tmp/x") == "1000\n1000:1000"
    mapped = docker.run(sh="cat /proc/self/uid_map").split()[1] != "0"
    assert mapped == (docker.mode == "syscont")


def test_terminal(docker: Docker) -> None:
    """`run -it` gives a terminal of the caller's size; `exec -it` another."""
    name = docker.client.name()
    command = [*docker.client.command, "run", "-it", "--runtime", docker.mode, "--name", name, IMAGE, "sh"]
    terminal = pexpect.spawn(command[0], command[1:], env=docker.client.env, dimensions=(33, 99), timeout=30)
    try:
        terminal.expect("[#$] ")
        terminal.sendline("stty size; tty")
        terminal.expect("33 99")
        terminal.expect("/dev/pts/0|/dev/console")
        assert docker("exec", "-t", name, "test", "-t", "1") == ""
        terminal.sendline("exit 5")
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == 5
    finally:
        terminal.close(force=True)
        docker("rm", "-f", name)


def test_detached_exec_logs_stop(docker: Docker) -> None:
    """A container in the background: exec, logs, top, stop with its trap heard, start again, kill, rename and rm."""
    script = "echo hello; trap 'echo bye; exit 3' TERM; while :; do sleep 0.2; done"
    name = docker.start("--hostname", "host1", sh=script)
    assert docker("exec", "-e", "A=b", "-w", "/tmp", name, "sh", "-c", "hostname; echo $A; pwd") == "host1\nb\n/tmp"
    assert docker.client("exec", name, "false", check=False).returncode == 1
    assert docker("exec", "-u", "1000", name, "id", "-u") == "1000"
    wait_until(lambda: docker("logs", name) == "hello", what="the log")
    # Docker asks the runtime, then ps; between the two one sleep may be over and the next begun.
    wait_until(lambda: "sleep" in docker("top", name), 30, "the script's sleep")
    docker("stop", "-t", "20", name)
    assert docker.inspect(name, "{{.State.ExitCode}}") == "3"
    assert docker("logs", name) == "hello\nbye"
    docker("start", name)
    docker("kill", name)
    assert docker("wait", name) == "137"
    docker("rm", name)


def test_pause_update_stats(docker: Docker) -> None:
    """The freezer, limits changed while it runs, and one line of statistics."""
    name = docker.start("-m", "64m", "--cpus", "0.5", "--pids-limit", "50")
    docker("pause", name)
    assert docker.inspect(name, "{{.State.Status}}") == "paused"
    docker("unpause", name)
    docker("update", "-m", "96m", "--memory-swap", "96m", "--pids-limit", "60", name)
    stats = json.loads(docker("stats", "--no-stream", "--format", "{{json .}}", name))
    assert "96MiB" in stats["MemUsage"]
    assert int(stats["PIDs"]) >= 1
    docker("rm", "-f", name)


def test_restart_policy(docker: Docker) -> None:
    """`on-failure:2` restarts twice; a policy of always brings back what was killed."""
    name = docker.start("--restart", "on-failure:2", sh="echo run; exit 1")
    docker.wait_for(name, "{{.RestartCount}} {{.State.Status}}", "2 exited")
    assert docker("logs", name) == "run\nrun\nrun"
    docker("rm", name)


def test_init_and_reaping(docker: Docker) -> None:
    """With --init the first process reaps what is orphaned."""
    assert docker.run("--init", sh="cat /proc/1/comm").startswith(("docker-init", "tini"))


def test_restrictions(docker: Docker) -> None:
    """--read-only, --cap-drop, --security-opt, ulimits, --tmpfs, --shm-size, sysctls and devices take effect."""
    script = "touch /x 2>&1; touch /tmp/x && echo tmp; df -k /dev/shm | tail -n1; ulimit -n; sysctl -n kernel.msgmax"
    options = ["--read-only", "--tmpfs", "/tmp:size=1m", "--shm-size", "8m", "--ulimit", "nofile=100:200"]
    options += ["--sysctl", "kernel.msgmax=4096", "--device", "/dev/null:/dev/nothing"]
    lines = docker.run(*options, sh=script + "; test -c /dev/nothing && echo device").split("\n")
    assert "Read-only file system" in lines[0]
    assert lines[1] == "tmp"
    assert lines[2].split()[1] == "8192"
    assert lines[3:] == ["100", "4096", "device"]
    no_caps = docker.run("--cap-drop", "ALL", "-e", "SYSVISOR_HONOR_CAPS=TRUE", sh="grep CapEff /proc/self/status")
    assert no_caps.split()[1] == "0" * 16
    assert docker.run("--security-opt", "no-new-privileges", sh="grep NoNewPrivs /proc/self/status").split()[1] == "1"
    assert docker.run("--security-opt", "seccomp=unconfined", sh="grep Seccomp: /proc/self/status").split()[1] == "0"


def test_out_of_memory(docker: Docker) -> None:
    """A container that is killed for its memory says so."""
    name = docker.start("-m", "16m", "--memory-swap", "16m", sh="tail /dev/zero")
    docker("wait", name)
    docker.wait_for(name, "{{.State.OOMKilled}}", "true")
    docker("rm", name)


def test_healthcheck(docker: Docker) -> None:
    """The health check runs inside, by exec."""
    name = docker.start("--health-cmd", "test -e /proc/1", "--health-interval", "0.2s")
    docker.wait_for(name, "{{.State.Health.Status}}", "healthy")
    docker("rm", "-f", name)


def test_volumes_and_binds(docker: Docker, tmp_path: pathlib.Path) -> None:
    """Named volumes and binds are written with the ids of the inside, and the next container finds them so."""
    volume = docker.client.name()
    bind = tmp_path / "bind"
    bind.mkdir()
    (bind / "given").write_text("given\n")
    script = "cat /b/given; echo made > /b/made; chown 1000 /b/made; echo v > /v/file; stat -c %u /b /b/given /v"
    assert docker.run("-v", f"{volume}:/v", "-v", f"{bind}:/b", sh=script).split() == ["given", "0", "0", "0"]
    assert (bind / "made").stat().st_uid == 1000
    for mode in ("plain", "syscont"):
        script = "cat /v/file; stat -c %u /v/file; touch /v/x"
        again = Docker(docker.client, mode).run("-v", f"{volume}:/v:ro", sh=script, check=False)
        assert again.split("\n")[:2] == ["v", "0"]
        assert "Read-only file system" in again
    # A new volume is filled with what the image has there.
    assert docker.run("-v", "/home", sh="stat -c %u /home") == "1000"
    docker("volume", "rm", volume)


def test_network(docker: Docker) -> None:
    """Containers reach each other by name on a network of their own, and a published port leads in."""
    network = docker.client.name()
    docker("network", "create", network)
    try:
        server = "echo page > /tmp/index.html; httpd -f -p 80 -h /tmp"
        name = docker.start("--network", network, "-p", "8080:80", sh=server)
        wait_until(
            lambda: docker.run("--network", network, sh=f"wget -q -O - http://{name}/", check=False) == "page",
            30,
            "the server",
        )
        fetch = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/', timeout=10).read().decode())"
        inside = ["nsenter", "--net", f"--target={docker.client.env['SVT_DAEMON']}", "python3", "-c", fetch]
        assert subprocess.run(inside, capture_output=True, text=True, timeout=60).stdout.strip() == "page"
        docker("rm", "-f", name)
        assert docker.run("--network", "none", sh="ls /sys/class/net") == "lo"
    finally:
        docker("network", "rm", network)


def test_namespaces_of_another_container(docker: Docker) -> None:
    """`--network`, `--ipc` and `--pid container:NAME` lead to that container's, whose ids are then the same."""
    name = docker.start("--ipc", "shareable")
    shared = [f"--{kind}=container:{name}" for kind in ("network", "ipc", "pid")]
    output = docker.run(*shared, sh="cat /proc/self/uid_map; ps | grep -c 'trap .exit [0]'; cat /proc/1/comm")
    *mapping, processes, first = output.split()
    assert mapping == docker("exec", name, "cat", "/proc/self/uid_map").split()
    assert (processes, first) == ("1", "sh")
    docker("rm", "-f", name)


CHANGES = "rm /etc/removed; echo new > /etc/changed; mkdir /made; echo x > /made/f; chown 1000 /made/f"
CHANGES += "; rm -r /home; mkdir /home"


def test_diff_commit_export(docker: Docker, tmp_path: pathlib.Path) -> None:
    """`diff`, `commit` and `export` see what changed, with the owners of the inside."""
    name = docker.start(sh=CHANGES)
    docker("wait", name)
    assert set(docker("diff", name).split("\n")) == {
        "C /etc", "D /etc/removed", "C /etc/changed", "A /made", "A /made/f", "C /home",
    }  # fmt: skip
    image = f"{docker.client.token}-image"
    docker("commit", name, image)
    script = "cat /etc/changed; stat -c %u /made/f /home /etc/changed; test ! -e /etc/removed && echo removed"
    for mode in ("plain", "syscont"):
        command = ["run", "--rm", "--runtime", mode, image, "sh", "-c", script]
        assert docker(*command).split() == ["new", "1000", "0", "0", "removed"]
    docker("export", "-o", str(tmp_path / "x.tar"), name)
    with tarfile.open(tmp_path / "x.tar") as archive:
        assert archive.getmember("made/f").uid == 1000
        assert archive.getmember("etc/changed").uid == 0
        assert "etc/removed" not in archive.getnames()
    docker("rm", name)
    docker("rmi", image)


def test_commit_of_a_running_container(docker: Docker) -> None:
    """A commit while it runs, which pauses it, has all of its changes."""
    name = docker.start(sh=f"{CHANGES}; touch /done; sleep 1000")
    wait_until(lambda: docker.client("exec", name, "test", "-e", "/done", check=False).returncode == 0, what="changes")
    image = f"{docker.client.token}-running"
    docker("commit", name, image)
    assert docker("run", "--rm", "--runtime", docker.mode, image, "cat", "/etc/changed", "/made/f") == "new\nx"
    docker("rm", "-f", name)
    docker("rmi", image)


def test_copy_while_it_runs(docker: Docker, tmp_path: pathlib.Path) -> None:
    """`docker cp` out shows the container's files, and into it arrives with the owner of the inside; what was looked at
    before is seen anew after `pause` and `unpause`."""
    name = docker.start()
    docker("exec", name, "sh", "-c", CHANGES)
    docker("cp", f"{name}:/etc/changed", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "new\n"
    docker("cp", str(tmp_path / "out"), f"{name}:/etc/given")
    script = "cat /etc/given; stat -c %u:%g /etc/given; echo newer > /etc/changed"
    assert docker("exec", name, "sh", "-c", script) == "new\n0:0"
    docker("exec", name, "sh", "-c", "rm /etc/given; ! cat /etc/later 2>/dev/null")
    docker("pause", name)
    docker("cp", f"{name}:/etc/changed", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "newer\n"
    assert docker.client("cp", f"{name}:/etc/given", str(tmp_path / "gone"), check=False).returncode == 1
    docker("cp", str(tmp_path / "out"), f"{name}:/etc/later")
    docker("unpause", name)
    assert docker("exec", name, "cat", "/etc/later") == "newer"
    docker("rm", "-f", name)


def test_layers_are_shared(syscont: Docker) -> None:
    """System containers of one image have different ids outside and yet one copy of its files, which nobody chowns."""
    first, second = syscont.start(), syscont.start()
    lowers = {syscont.inspect(name, "{{.GraphDriver.Data.LowerDir}}").split(":")[-1] for name in (first, second)}
    assert len(lowers) == 1
    (lower,) = lowers
    assert {path.lstat().st_uid for path in pathlib.Path(lower).rglob("*")} == {0, 1000}
    maps = {syscont("exec", name, "cat", "/proc/self/uid_map") for name in (first, second)}
    assert len(maps) == 2
    for name in (first, second):
        upper = pathlib.Path(syscont.inspect(name, "{{.GraphDriver.Data.UpperDir}}"))
        assert {path.lstat().st_uid for path in upper.rglob("*")} <= {0}
        assert [path.name for path in upper.parent.iterdir() if "sysvisor" in path.name]
        syscont("stop", "-t", "5", name)
        assert not [path.name for path in upper.parent.iterdir() if "sysvisor" in path.name]
    syscont("rm", first, second)


def test_build(syscont: Docker, tmp_path: pathlib.Path) -> None:
    """An image is built in system containers, layer on layer, with the owners that the steps gave."""
    (tmp_path / "Dockerfile").write_text(
        f"FROM {IMAGE}\nRUN echo one > /one && chown 1000 /one && rm /etc/removed\nCOPY given /given\n"
        'RUN echo two >> /one && cat /given >> /one\nUSER 1000\nCMD ["cat", "/one"]\n'
    )
    (tmp_path / "given").write_text("three\n")
    image = f"{syscont.client.token}-built"
    syscont("build", "-q", "-t", image, str(tmp_path))
    for mode in ("plain", "syscont"):
        assert syscont("run", "--rm", "--runtime", mode, image) == "one\ntwo\nthree"
        owners = syscont("run", "--rm", "--runtime", mode, image, "stat", "-c", "%u", "/one", "/given")
        assert owners.split() == ["1000", "0"]
    syscont("rmi", image)


def test_errors_reach_the_user(docker: Docker) -> None:
    """What the runtime has to say is what docker prints."""
    result = docker.client("run", "--rm", "--runtime", docker.mode, IMAGE, "/no/such", check=False)
    assert result.returncode == 127
    assert "no such file or directory" in result.stderr


@pytest.fixture(scope="module")
def remapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    directory = tmp_path_factory.mktemp("remap")
    for path in (directory, *directory.parents[:2]):
        path.chmod(0o755)
    with docker_daemon(directory, "plain", remap=True) as client:
        yield client


def test_userns_remap(remapped: Client, tmp_path: pathlib.Path) -> None:
    """With --userns-remap the daemon's ids are used as they are, in both modes, and images can be built."""
    for mode in ("plain", "syscont"):
        docker = Docker(remapped, mode)
        script = "cat /proc/self/uid_map; stat -c %u /bin /home; touch /x && stat -c %u /x"
        assert docker.run(sh=script).split() == ["0", "200000", "65536", "0", "1000", "0"]
        assert docker.run("-v", "vol:/v", sh="touch /v/x && stat -c %u /v/x") == "0"
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN touch /built\n")
    remapped("build", "-q", "-t", "built", str(tmp_path))
    assert remapped.out("run", "--rm", "built", "stat", "-c", "%u", "/built") == "0"

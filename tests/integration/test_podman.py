"""Podman drives our runtime through conmon, for plain containers and for system containers."""

import pathlib
import shutil
import subprocess
from collections.abc import Iterator

import pexpect
import pytest

from tests.support import leaks
from tests.support.clients import IMAGE, Client, image_tar, private_daemon, program, remove_cgroups, wrapper
from tests.support.runtime import wait_until

pytestmark = [pytest.mark.slow]

CONFIG = """[containers]
default_ulimits = ["nofile=1024:4096", "nproc=2048:2048"]
[engine]
lock_type = "file"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
network_config_dir = "{0}/networks"
"""

# A copy of the hierarchy of cgroups where Podman may litter: it makes directories for controllers that are not there.
CGROUPS = """
mkdir {0}/cgroups && mount -t tmpfs cgroups {0}/cgroups && for each in /sys/fs/cgroup/*; do
    if mountpoint -q $each; then copy={0}/cgroups/${{each##*/}}; mkdir $copy && mount --bind $each $copy; fi
done && mount --move {0}/cgroups /sys/fs/cgroup && """


class Podman:
    """`podman` with containers of one mode."""

    def __init__(self, client: Client, mode: str) -> None:
        self.client = client
        self.mode = mode
        self.runtime = str(wrapper(client.directory, mode))
        self.parent = f"--cgroup-parent=/{client.token}"

    def __call__(self, *args: str, check: bool = True, text: str = "") -> str:
        return self.client("--runtime", self.runtime, *args, check=check, text=text).stdout.strip()

    def succeeds(self, *args: str) -> bool:
        return self.client("--runtime", self.runtime, *args, check=False).returncode == 0

    def run(self, *args: str, sh: str, text: str = "") -> str:
        """Run a shell script in a container to its end; what it prints."""
        return self("run", "--rm", self.parent, *args, IMAGE, "sh", "-c", sh, text=text)

    def start(self, *args: str, sh: str = "trap 'exit 3' TERM; while :; do sleep 0.2; done") -> str:
        name = self.client.name()
        given = [] if "--pod" in args else [self.parent]
        self("run", "-d", "--name", name, *given, *args, IMAGE, "sh", "-c", sh)
        return name

    def remove(self, name: str) -> None:
        """Its mounts may be busy for a moment, while Podman itself cleans up."""
        wait_until(lambda: self.succeeds("rm", "-f", "-t", "0", name), 30, f"the end of {name}")

    def inspect(self, name: str, template: str) -> str:
        return self("inspect", "--format", template, name)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Podman's storage, in namespaces that a sleeping process holds."""
    directory = tmp_path_factory.mktemp("podman")
    for path in (directory, *directory.parents[:2]):
        path.chmod(0o755)
    (directory / "containers.conf").write_text(CONFIG.format(directory))
    (directory / "subid").write_text("containers:300000:655360\n")
    # Podman leaves a file for each network of whose end it does not hear.
    setup = "mkdir -p /run/netns && mount -t tmpfs netns /run/netns && "
    setup += "".join(f"mount --bind {directory}/subid /etc/{name} && " for name in ("subuid", "subgid"))
    if not pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists():
        setup += CGROUPS.format(directory)
    command = [program("podman", "podman"), "--storage-driver", "overlay", "--root", f"{directory}/root"]
    command += ["--runroot", f"{directory}/run", "--tmpdir", f"{directory}/tmp"]
    with private_daemon(["sleep", "infinity"], directory / "holder.log", setup) as holder:
        comm = pathlib.Path(f"/proc/{holder.pid}/comm")
        wait_until(lambda: comm.read_text() == "sleep\n", 60, "the namespaces")
        enter = ["nsenter", f"--target={holder.pid}", "--net", "--mount", f"--wdns={directory}"]
        client = Client(directory, *enter, *command)
        client.env["CONTAINERS_CONF"] = f"{directory}/containers.conf"
        client("import", str(image_tar(directory)), IMAGE)
        yield client
        client("pod", "rm", "--all", "--force", "-t", "0", check=False)
        client("rm", "--all", "--force", "-t", "0", check=False)
        wait_until(
            lambda: [p for p in leaks.processes(client.token, directory) if "sleep" not in p] == [], 30, "the end"
        )
        client("network", "prune", "--force", check=False)
    remove_cgroups(client.token)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(params=["plain", "syscont"])
def podman(request: pytest.FixtureRequest, place: Client) -> Podman:
    return Podman(place, request.param)


def test_runs(podman: Podman, tmp_path: pathlib.Path) -> None:
    """Output, input, exit code, users, volumes and restrictions."""
    script = "cat; id -u; stat -c %u /bin /home /mnt; touch /mnt/made"
    assert podman.run("-i", "-v", f"{tmp_path}:/mnt", sh=script, text="in\n").split() == ["in", "0", "0", "1000", "0"]
    assert (tmp_path / "made").stat().st_uid == 0
    volume = podman.client.name()
    assert podman.run("-v", f"{volume}:/v", sh="echo v > /v/f; chown 5 /v/f; stat -c %u /v/f") == "5"
    assert podman.run("-v", f"{volume}:/v:ro", sh="cat /v/f; stat -c %u /v/f").split() == ["v", "5"]
    podman("volume", "rm", volume)
    limits = ["--ulimit", "nofile=100:200", "--ulimit", "nproc=500:500"]
    script = "touch /x 2>/dev/null || echo ro; touch /tmp/x && echo tmp; ulimit -n"
    lines = podman.run("--read-only", "--tmpfs", "/tmp", *limits, sh=script)
    assert lines.split() == ["ro", "tmp", "100"]
    assert podman.run("--init", sh="cat /proc/1/comm") in ("catatonit", "init", "podman-init")


def test_lifecycle(podman: Podman) -> None:
    """Detached: exec, logs, top, pause, update, stats, stop, restart, kill."""
    name = podman.start("-m", "64m", sh="echo hello; trap 'exit 3' TERM; while :; do sleep 0.2; done")
    assert podman("exec", "-u", "1000", name, "id", "-u") == "1000"
    wait_until(lambda: podman("logs", name) == "hello", 30, "the log")
    wait_until(lambda: "sleep" in podman("top", name, "args"), 30, "the script's sleep")
    podman("pause", name)
    assert podman.inspect(name, "{{.State.Status}}") == "paused"
    podman("unpause", name)
    assert "67.11MB" in podman("stats", "--no-stream", "--format", "{{.MemUsage}}", name)
    podman("update", "--cpus", "0.5", name)
    podman("stop", "-t", "20", name)
    assert podman.inspect(name, "{{.State.ExitCode}}") == "3"
    podman("restart", name)
    podman("kill", name)
    assert podman("wait", name) == "137"
    podman("rm", name)


def test_terminal(podman: Podman) -> None:
    """`run -it` gives a terminal of the caller's size, and its exit code."""
    argv = [*podman.client.command, "--runtime", podman.runtime, "run", "--rm", "-it", podman.parent, IMAGE, "sh"]
    terminal = pexpect.spawn(argv[0], argv[1:], env=podman.client.env, dimensions=(33, 99), timeout=60)
    try:
        terminal.expect("[#$] ")
        terminal.sendline("stty size; exit 5")
        terminal.expect("33 99")
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == 5
    finally:
        terminal.close(force=True)


def test_restart_policy(podman: Podman) -> None:
    """`on-failure:2` runs it three times."""
    name = podman.start("--restart", "on-failure:2", sh="echo run; exit 1")
    wait_until(lambda: podman("logs", name).split() == ["run"] * 3, 60, "two restarts")
    wait_until(lambda: podman.inspect(name, "{{.RestartCount}} {{.State.Status}}") == "2 exited", 60, "the last end")
    podman.remove(name)


def test_restrictions(podman: Podman) -> None:
    """--cap-drop, --security-opt and --sysctl take effect."""
    caps = ["--cap-drop", "ALL", "-e", "SYSVISOR_HONOR_CAPS=TRUE"]
    assert podman.run(*caps, sh="grep CapEff /proc/self/status").split()[1] == "0" * 16
    script = "grep NoNewPrivs /proc/self/status; sysctl -n kernel.msgmax"
    options = ["--security-opt", "no-new-privileges", "--sysctl", "kernel.msgmax=4096"]
    assert podman.run(*options, sh=script).split() == ["NoNewPrivs:", "1", "4096"]
    unconfined = podman.run("--security-opt", "seccomp=unconfined", sh="grep Seccomp: /proc/self/status")
    assert unconfined.split()[1] == "0"


def test_out_of_memory(podman: Podman) -> None:
    """The limit holds. (Debian's conmon does not see why on cgroup v1, whatever the runtime: OOMKilled stays false.)"""
    name = podman.start("-m", "16m", "--memory-swap", "16m", sh="tail /dev/zero")
    assert podman("wait", name) == "137"
    podman.remove(name)


def test_published_port(podman: Podman) -> None:
    """A port of the host's leads into the container."""
    name = podman.start("-p", "8081:80", sh="echo page > /tmp/index.html; httpd -f -p 80 -h /tmp")
    enter = podman.client.command[: podman.client.command.index("--mount")]
    fetch = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8081/', timeout=10).read().decode())"

    def page() -> str:
        argv = [*enter, "python3", "-c", fetch]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False).stdout.strip()

    wait_until(lambda: page() == "page", 30, "the server behind the port")
    podman.remove(name)


def test_healthcheck(podman: Podman) -> None:
    """The health check runs inside."""
    name = podman.start("--health-cmd", "test -e /proc/1", "--health-interval", "disable")
    podman("healthcheck", "run", name)
    assert podman.inspect(name, "{{.State.Health.Status}}") == "healthy"
    podman.remove(name)


def test_diff_commit_and_copy(podman: Podman, tmp_path: pathlib.Path) -> None:
    """`diff`, `commit` and `cp` see what changed, with the owners of the inside."""
    name = podman.start(sh="rm /etc/removed; echo new > /etc/changed; echo x > /made; chown 1000 /made; sleep 1000")
    wait_until(lambda: podman.succeeds("exec", name, "sh", "-c", "test $(stat -c %u /made) = 1000"), 30, "the changes")
    changes = set(podman("diff", name).split("\n"))
    assert {"D /etc/removed", "C /etc/changed", "A /made"} <= changes
    podman("cp", f"{name}:/etc/changed", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "new\n"
    if podman.mode == "plain":
        podman("cp", str(tmp_path / "out"), f"{name}:/etc/given")
    else:
        # Podman enters the container's mounts as the host's root, who is nobody there.
        assert not podman.succeeds("cp", str(tmp_path / "out"), f"{name}:/etc/given")
        podman("exec", "-i", name, "sh", "-c", "cat > /etc/given", text="new\n")
    assert podman("exec", name, "sh", "-c", "cat /etc/given; stat -c %u /etc/given").split() == ["new", "0"]
    image = f"localhost/{podman.client.token}-image"
    podman("commit", "-q", name, image)
    podman.remove(name)
    script = "cat /etc/changed /etc/given; stat -c %u /made; test ! -e /etc/removed && echo removed"
    for mode in ("plain", "syscont"):
        command = ["run", "--rm", podman.parent, image, "sh", "-c", script]
        assert Podman(podman.client, mode)(*command).split() == ["new", "new", "1000", "removed"]
    podman("rmi", image)


def test_mapped_by_podman(podman: Podman) -> None:
    """A user namespace that Podman asks for is taken as it is."""
    script = "cat /proc/self/uid_map; stat -c %u /bin; touch /x && stat -c %u /x"
    maps = ["--uidmap", "0:300000:65536", "--gidmap", "0:300000:65536"]
    assert podman.run(*maps, sh=script).split() == ["0", "300000", "65536", "0", "0"]


def test_own_user_namespace_of_podman(podman: Podman) -> None:
    """With --userns=auto Podman chooses the ids and makes the network for them, which then can be changed inside."""
    script = "cat /proc/self/uid_map | wc -l; ip link set eth0 down && echo changed"
    output = podman.run("--userns=auto:size=65536", "--cap-add=NET_ADMIN", sh=script)
    assert output.split() == ["1", "changed"]


def test_network_of_the_host(podman: Podman) -> None:
    """Without one of Podman's the network is the host's: low ports can be opened and sysctls asked for all the same."""
    script = "ls /sys/class/net; cat /proc/sys/net/core/somaxconn; (echo x | nc -l -p 80 >/dev/null &) ; sleep 0.2"
    script += "; nc 127.0.0.1 80 </dev/null; mount | grep -c 'sysfs on /sys '"
    lines = podman.run("--sysctl", "net.core.somaxconn=77", sh=script).split("\n")
    assert set(lines[:2]) == {"eth0", "lo"}
    assert lines[2:] == ["77", "x", "1"]


def test_systemd_always(podman: Podman) -> None:
    """What Podman prepares for systemd is there: tmpfs at /run, a writable cgroup mount, its name in $container."""
    script = "echo $container; touch /run/x && echo run; grep /sys/fs/cgroup/systemd /proc/mounts | tail -n1"
    name, run, mount = podman.run("--systemd=always", sh=script).split("\n")
    assert (name, run) == ("podman", "run")
    assert mount.split()[3].startswith("rw")


def test_pod(podman: Podman) -> None:
    """Containers of a pod share the network; a port is published by the pod."""
    pod = podman.client.name()
    podman("pod", "create", "--name", pod, podman.parent)
    try:
        podman.start("--pod", pod, sh="echo page > /tmp/index.html; httpd -f -p 80 -h /tmp")
        command = ["run", "--rm", "--pod", pod, IMAGE, "wget", "-q", "-O", "-", "http://127.0.0.1/"]
        wait_until(lambda: podman(*command, check=False) == "page", 30, "the server in the pod")
    finally:
        # The monitor's cgroup may be busy for a moment.
        wait_until(lambda: podman.succeeds("pod", "rm", "-f", "-t", "0", pod), 30, "the end of the pod")


def test_build(podman: Podman, tmp_path: pathlib.Path) -> None:
    """Images are built."""
    (tmp_path / "Dockerfile").write_text(
        f"FROM {IMAGE}\nRUN echo one > /one && chown 1000 /one\nRUN cat /one >> /two\n"
    )
    image = f"localhost/{podman.client.token}-built"
    podman("build", "-q", "--isolation", "oci", "-t", image, str(tmp_path))
    command = ["run", "--rm", podman.parent, image, "sh", "-c", "cat /two; stat -c %u /one"]
    assert podman(*command).split() == ["one", "1000"]
    podman("rmi", image)

"""containerd drives our runtime through its shim, by `ctr`."""

import pathlib
from collections.abc import Iterator

import pexpect
import pytest

from tests.support.clients import Client, wrapper
from tests.support.containerd import IMAGE, containerd, release
from tests.support.runtime import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.debian("current")]


class Ctr:
    """`ctr` with containers of one mode."""

    def __init__(self, client: Client, mode: str) -> None:
        self.client = client
        self.mode = mode

    def __call__(self, *args: str, check: bool = True) -> str:
        return self.client(*args, check=check).stdout.strip()

    def options(self, name: str, *args: str) -> list[str]:
        binary = str(wrapper(self.client.directory, self.mode))
        cgroup = f"/{self.client.token}/{name}"
        return ["run", "--runc-binary", binary, "--cgroup", cgroup, *args, IMAGE, name]

    def run(self, *args: str, sh: str) -> str:
        """Run a shell script in a container to its end; what it prints."""
        return self("run", "--rm", *self.options(self.client.name(), *args)[1:], "sh", "-c", sh)

    def start(self, *args: str, sh: str) -> str:
        name = self.client.name()
        self(*self.options(name, "-d", *args), "sh", "-c", sh)
        return name

    def status(self, name: str) -> str:
        return next((line.split()[2] for line in self("task", "ls").split("\n") if line.startswith(name)), "")

    def remove(self, name: str) -> None:
        self("task", "rm", "--force", name, check=False)
        self("container", "rm", name)


@pytest.fixture(scope="module", params=["", "2"], ids=["installed", "2"])
def daemon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    directory = tmp_path_factory.mktemp("containerd")
    with containerd(directory, "default", release(request.param, directory)) as client:
        yield client


@pytest.fixture(params=["plain", "syscont"])
def ctr(request: pytest.FixtureRequest, daemon: Client) -> Ctr:
    return Ctr(daemon, request.param)


def test_runs(ctr: Ctr, tmp_path: pathlib.Path) -> None:
    """A container of two layers runs, with its owners, with a bind mount, read-only where asked."""
    bind = f"type=bind,src={tmp_path},dst=/mnt,options=rbind:rw"
    script = "cat /second; stat -c %u /bin /home; touch /mnt/made; stat -c %u /mnt/made"
    assert ctr.run("--mount", bind, sh=script).split() == ["second", "0", "1000", "0"]
    assert (tmp_path / "made").stat().st_uid == 0
    assert "ok" in ctr.run("--read-only", sh="touch /x 2>/dev/null || echo ok")


def test_task_commands(ctr: Ctr) -> None:
    """exec, pause, resume, ps, metrics, kill: what the shim asks the runtime for."""
    name = ctr.start("--memory-limit", "67108864", sh="trap 'exit 3' TERM; while :; do sleep 0.2; done")
    assert ctr("task", "exec", "--exec-id", "one", name, "sh", "-c", "echo inside") == "inside"
    ctr("task", "pause", name)
    assert ctr.status(name) == "PAUSED"
    ctr("task", "resume", name)
    assert ctr.status(name) == "RUNNING"
    assert len(ctr("task", "ps", name).split("\n")) >= 2
    assert "67108864" in ctr("task", "metrics", name)
    ctr("task", "kill", "--signal", "SIGTERM", name)
    wait_until(lambda: ctr.status(name) == "STOPPED", 30, "the end")
    ctr.remove(name)


def test_restrictions(ctr: Ctr) -> None:
    """Capabilities, the seccomp profile and the processor's quota that ctr asks for take effect."""
    script = "grep -E 'CapEff|Seccomp:' /proc/self/status"
    options = ["--cap-drop", "CAP_CHOWN", "--env", "SYSVISOR_HONOR_CAPS=TRUE", "--seccomp", "--cpus", "0.5"]
    capabilities, filtered = (line.split()[1] for line in ctr.run(*options, sh=script).split("\n"))
    assert not int(capabilities, 16) & 1
    assert filtered == "2"


def test_out_of_memory(ctr: Ctr) -> None:
    """A container that is killed for its memory ends with 128 + SIGKILL."""
    argv = ctr.options(ctr.client.name(), "--rm", "--memory-limit", "16777216")
    assert ctr.client(*argv, "sh", "-c", "tail /dev/zero", check=False).returncode == 137


def test_terminal(ctr: Ctr) -> None:
    """`run -t` gives a terminal whose lines come back, and the exit code of what ran on it."""
    command = [*ctr.client.command, *ctr.options(ctr.client.name(), "--rm", "-t"), "sh"]
    terminal = pexpect.spawn(command[0], command[1:], env=ctr.client.env, timeout=60)
    try:
        terminal.expect("[#$] ")
        terminal.sendline("test -t 0 && tty; exit 5")
        terminal.expect("/dev/pts/0|/dev/console")
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == 5
    finally:
        terminal.close(force=True)


def test_forced_removal(ctr: Ctr) -> None:
    """A running container can be removed at once."""
    name = ctr.start(sh="exec sleep 1000")
    ctr.remove(name)
    assert ctr.status(name) == ""

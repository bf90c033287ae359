"""The last resort of sysvisor-fs: a connection that the kernel has ended is replaced in a container that runs."""

import os
import pathlib
import signal
from collections.abc import Callable, Iterator

import pytest

from sysvisor_runc.kernel import mount as m
from tests.support import leaks
from tests.support.bundle import Bundle
from tests.support.fs_own import OwnDaemon
from tests.support.runtime import Runtime, wait_until

MEMORY = 96 << 20
MEMTOTAL = f"MemTotal:{MEMORY >> 10:>15} kB"
MASKED = "/sys/devices/virtual/misc"


class Container:
    """One that is served, and its daemon."""

    def __init__(self, runtime: Runtime, daemon: OwnDaemon, name: str) -> None:
        self.runtime = runtime
        self.daemon = daemon
        self.name = name

    def sh(self, script: str) -> str:
        """What a script says inside, errors included."""
        result = self.runtime("exec", self.name, "/bin/sh", "-c", f"{{ {script}; }} 2>&1", check=False)
        return result.stdout.strip()

    def mounts(self) -> list[list[str]]:
        """The fields of mountinfo of what is served, and what is mounted below."""
        lines = pathlib.Path(f"/proc/{self.runtime.state(self.name)['pid']}/mountinfo").read_text().splitlines()
        served = [line.split(" ") for line in lines if "fuse.sysvisorfs" in line]
        inner = [line.split(" ") for line in lines if line.split(" ")[1] in {fields[0] for fields in served}]
        return [*served, *inner]

    def shown(self) -> list[tuple[str, str]]:
        """Places and their flags, in order."""
        return sorted((fields[4], fields[5]) for fields in self.mounts())

    def abort(self) -> None:
        """End its connection in the kernel, by the control file system of FUSE, which need not be mounted anywhere."""
        minor = self.mounts()[0][2].partition(":")[2]
        context = m.fsopen("fusectl")
        m.fsconfig(context, m.FSCONFIG_CMD_CREATE)
        connections = m.fsmount(context)
        file = os.open(f"{minor}/abort", os.O_WRONLY, dir_fd=connections)
        os.write(file, b"1")
        for fd in (file, connections, context):
            os.close(fd)

    def is_well(self) -> bool:
        """Whether it reads its own values."""
        return self.sh("head -n1 /proc/meminfo") == MEMTOTAL


@pytest.fixture
def container(
    request: pytest.FixtureRequest, workplace: pathlib.Path, monkeypatch: pytest.MonkeyPatch,
    new_bundle: Callable[..., Bundle],
) -> Iterator[Container]:  # fmt: skip
    """A container with a limit, something masked below a served directory, and a sysctl that was set."""
    daemon = OwnDaemon(workplace)
    for key, value in daemon.environment().items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("SYSVISOR_FS_REMOUNT", request.param)
    runtime = Runtime(workplace)
    bundle = new_bundle("/bin/sleep", "10000")
    bundle.linux["resources"] = {"memory": {"limit": MEMORY}}
    bundle.linux["maskedPaths"] = [MASKED]
    bundle.save()
    name = runtime.id()
    runtime("run", "--detach", "--bundle", bundle.path, name)
    made = Container(runtime, daemon, name)
    assert made.is_well()
    assert made.sh(f"ls {MASKED}; sysctl -w kernel.panic=77") == "kernel.panic = 77"
    yield made
    runtime.clean()
    daemon.stop()
    wait_until(lambda: leaks.find(runtime) == [], what="an end of everything")


def looks_as_before(container: Container, shown: list[tuple[str, str]]) -> None:
    """What was served is, with its flags; what was masked is; what was set is; nested procfs can be mounted still."""
    assert container.is_well()
    assert container.shown() == shown
    assert container.sh(f"ls {MASKED}; cat /proc/sys/kernel/panic") == "77"
    for value in ("78", "77"):
        assert container.sh(f"echo {value} >/proc/sys/kernel/panic; cat /proc/sys/kernel/panic") == value
    assert container.sh("unshare -Urmpf mount -t proc proc /proc") == ""


@pytest.mark.parametrize("container", ["manual"], indirect=True)
def test_operator_mounts_anew(container: Container) -> None:
    """An aborted connection fails readers; `remount` gives the container its files again, and harms nothing twice."""
    shown = container.shown()
    container.abort()
    assert "not connected" in container.sh("cat /proc/meminfo")
    for _ in range(2):
        done = container.daemon.command("remount", container.name)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        looks_as_before(container, shown)
    failed = container.daemon.command("remount", "nobody")
    assert failed.returncode == 1
    assert "nobody" in failed.stderr


@pytest.mark.parametrize("container", ["auto"], indirect=True)
def test_daemon_mounts_anew(container: Container) -> None:
    """The daemon sees by itself that a connection was aborted, and has it replaced; again and again."""
    shown = container.shown()
    for _ in range(2):
        container.abort()
        wait_until(container.is_well, 30, "right values")
        looks_as_before(container, shown)


@pytest.mark.parametrize("container", ["auto"], indirect=True)
def test_holder_killed(container: Container) -> None:
    """With its holder all connections are lost: the daemon starts another one, and its containers are served again."""
    shown = container.shown()
    pid = container.daemon.status()["pid"]
    (holder,) = (
        int(entry.name)
        for entry in pathlib.Path("/proc").iterdir()
        if entry.name.isdigit() and _is_holder(entry, container.daemon.run_dir)
    )
    before = container.mounts()[0][2]
    os.kill(holder, signal.SIGKILL)
    wait_until(lambda: container.mounts()[0][2] != before and container.is_well(), 30, "right values")
    looks_as_before(container, shown)
    assert container.daemon.status()["pid"] == pid
    assert container.daemon.served() == [container.name]


def _is_holder(process: pathlib.Path, run_dir: pathlib.Path) -> bool:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"holder" in words and f"--run-dir={run_dir}".encode() in words

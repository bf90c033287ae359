"""Containers as sysvisor-fs shows them to themselves: limits, programs, nesting, and a daemon that dies meanwhile."""

import pathlib
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support import leaks
from tests.support.bundle import Bundle, make_bundle
from tests.support.fs_own import OwnDaemon
from tests.support.runtime import Runtime, wait_until
from tools import borrow

MEMORY = 96 << 20

Exec = Callable[..., str]


@pytest.fixture(scope="module")
def inside(rootfs_template: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Exec, OwnDaemon]]:
    """Runs a command in a container of 96 MiB and half a CPU, with procps, and gives what it prints."""
    directory = tmp_path_factory.mktemp("fs")
    for parent in (directory, *directory.parents[:2]):
        parent.chmod(0o755)
    daemon = OwnDaemon(directory)
    runtime = Runtime(directory)
    bundle = _limited(make_bundle(directory / "bundle", rootfs_template, ("/bin/sleep", "10000")))
    borrow.programs(bundle.rootfs, "free", "nproc", "sysctl", "unshare")
    name = runtime.id()
    with pytest.MonkeyPatch.context() as environment:
        for key, value in daemon.environment().items():
            environment.setenv(key, value)
        runtime("run", "--detach", "--cpuset-from-quota", "--bundle", bundle.path, name)
        yield lambda *argv: runtime("exec", name, *argv).stdout, daemon
        runtime("delete", "--force", name)
        assert daemon.served() == []
        daemon.stop()
        runtime.clean()
    wait_until(lambda: leaks.find(runtime) == [], what="an end of everything")


def _limited(bundle: Bundle) -> Bundle:
    bundle.linux["resources"] = {"memory": {"limit": MEMORY}, "cpu": {"quota": 50_000, "period": 100_000}}
    bundle.save()
    return bundle


def test_memory_is_the_limit(inside: tuple[Exec, OwnDaemon]) -> None:
    """meminfo and procps' free tell the cgroup's limit."""
    look, _ = inside
    assert f"MemTotal:{MEMORY >> 10:>15} kB" in look("cat", "/proc/meminfo")
    assert look("free", "-m").splitlines()[1].split()[1] == "96"


def test_cpus_are_the_quota(inside: tuple[Exec, OwnDaemon]) -> None:
    """cpuinfo, stat and the cpu directories show one CPU for half of one; nproc too, its cpuset is narrowed."""
    look, _ = inside
    assert look("grep", "-c", "^processor", "/proc/cpuinfo").strip() == "1"
    assert look("grep", "-c", "^cpu[0-9]", "/proc/stat").strip() == "1"
    assert look("cat", "/sys/devices/system/cpu/online").strip() == "0"
    assert look("nproc").strip() == "1"


def test_uptime_is_the_containers(inside: tuple[Exec, OwnDaemon]) -> None:
    """It began when the container did, and goes on."""
    look, _ = inside
    first, second = (float(look("cat", "/proc/uptime").split()[0]) for _ in range(2))
    assert 0 < first <= second < 1000
    assert second < float(pathlib.Path("/proc/uptime").read_text().split()[0]) or second < 1000


def test_sysctls_are_its_own(inside: tuple[Exec, OwnDaemon]) -> None:
    """What is written inside is read inside, and the host's stays what it was."""
    look, _ = inside
    before = subprocess.run(["sysctl", "kernel.panic", "net.core.somaxconn"], capture_output=True, check=True).stdout
    look("sysctl", "-q", "-w", "kernel.panic=77", "net.core.somaxconn=321")
    assert look("sysctl", "-n", "kernel.panic", "net.core.somaxconn").split() == ["77", "321"]
    after = subprocess.run(["sysctl", "kernel.panic", "net.core.somaxconn"], capture_output=True, check=True).stdout
    assert after == before


def test_nested_namespaces_mount_their_own(inside: tuple[Exec, OwnDaemon]) -> None:
    """A nested user namespace mounts procfs and sysfs: what is served does not count as hiding them."""
    look, _ = inside
    script = "mount -t sysfs sysfs /sys && ls /sys/class/net && cat /proc/1/comm; true"
    assert look("unshare", "-Urnpf", "--mount-proc", "sh", "-c", script).split() == ["lo", "sh"]


def test_nested_reader_gets_the_containers_answer(inside: tuple[Exec, OwnDaemon]) -> None:
    """In an inner user and pid namespace that keeps the mounts, the files are the container's still."""
    look, _ = inside
    assert f"MemTotal:{MEMORY >> 10:>15} kB" in look("unshare", "-Urpf", "cat", "/proc/meminfo")


def test_daemon_killed_meanwhile(inside: tuple[Exec, OwnDaemon]) -> None:
    """Readers of a container see no error when the daemon is killed, again and again, and the numbers stay right."""
    look, daemon = inside
    loop = "n=0; while [ $n -lt 200 ]; do cat /proc/meminfo >/tmp/seen || exit 1; n=$((n+1)); done"
    for _ in range(2):
        pid = daemon.status()["pid"]
        daemon.kill()
        assert look("sh", "-c", f"{loop}; head -n1 /tmp/seen").split() == ["MemTotal:", str(MEMORY >> 10), "kB"]
        wait_until(lambda: daemon.command("status").returncode == 0, 30, "the next daemon")
        assert daemon.status()["pid"] != pid

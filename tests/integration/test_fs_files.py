"""sysvisor-fs with its own tree: what programs in a container are told, and who may change it, through real mounts."""

import os
import pathlib
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from sysvisor_runc.kernel import mount
from sysvisor_runc.kernel import namespaces as ns
from tests.support import fs_subject
from tests.support.fs_daemon import FsDaemon
from tests.support.fs_subject import Subject
from tests.support.runtime import wait_until

MIB = 1 << 20
PLACES = (
    "proc/cpuinfo", "proc/diskstats", "proc/loadavg", "proc/meminfo", "proc/stat", "proc/swaps", "proc/sys",
    "proc/uptime", "sys/devices/virtual", "sys/devices/system/cpu", "sys/kernel",
)  # fmt: skip


class Served:
    """A container with sysvisor-fs's files in place."""

    def __init__(self, daemon: FsDaemon, subject: Subject, name: str) -> None:
        self.daemon = daemon
        self.subject = subject
        self.name = name

    def attach(self) -> None:
        """Lay the files over the container's, in its mount namespace."""
        fds = self.daemon.trees(self.name, *PLACES)
        namespace = os.open(f"/proc/{self.subject.pid}/ns/mnt", os.O_RDONLY)

        def work() -> None:
            ns.setns(namespace, ns.CLONE_NEWNS)
            for fd, place in zip(fds, PLACES, strict=True):
                mount.move_mount(fd, "", mount.AT_FDCWD, f"/{place}", mount.MOVE_MOUNT_F_EMPTY_PATH)

        try:
            _in_child(work)
        finally:
            for fd in (namespace, *fds):
                os.close(fd)

    def run(self, *command: str, uid: int = 0, **options: str) -> str:
        """What a program in the container prints; it must end well."""
        done = self.try_to(*command, uid=uid)
        assert done.returncode == 0, done
        return done.stdout

    def try_to(self, *command: str, uid: int = 0) -> subprocess.CompletedProcess[str]:
        """A program in the container, as a user of it."""
        enter = ["nsenter", "-t", str(self.subject.pid), "-U", "-n", "-i", "-u", "-m", "-S", str(uid), "-G", str(uid)]
        # Its caches: programs of this machine keep their own somewhere in a home.
        return subprocess.run(
            [*enter, *command], capture_output=True, text=True, timeout=100, env={**os.environ, "LC_ALL": "C"}
        )

    def limit(self, **values: str) -> None:
        """Set limits by the name of their file, v1 or v2, whichever is there."""
        for name, value in values.items():
            for path in set(self.subject.cgroups.values()):
                file = path / name.replace("__", ".")
                if file.exists():
                    file.write_text(value)


def _in_child(work: Callable[[], None]) -> None:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FsDaemon]:
    """A daemon with the tree that it has for everybody."""
    made = FsDaemon(tmp_path_factory.mktemp("fs"), tree="sysvisor_fs.nodes.tree")
    made.start()
    yield made
    made.stop("--all")
    wait_until(lambda: not made.holders(), what="the end of every process")


@pytest.fixture(scope="module")
def served(daemon: FsDaemon) -> Iterator[Served]:
    """A container of 256 MiB and one CPU and a half; its init is in the cgroups that limit it."""
    with fs_subject.subject() as subject:
        one = Served(daemon, subject, "served")
        one.limit(memory__max=str(256 * MIB), memory__limit_in_bytes=str(256 * MIB))
        one.limit(cpu__max="50000 100000", cpu__cfs_quota_us="50000")
        for path in set(subject.cgroups.values()):
            (path / "cgroup.procs").write_text(str(subject.pid))
        daemon.register("served", pid=subject.pid, first=fs_subject.FIRST)
        one.attach()
        yield one


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program}; to force it: install it")


def test_free(served: Served) -> None:
    """procps free: total is the limit."""
    needs("free")
    words = served.run("free", "-m").splitlines()[1].split()
    assert words[1] == "256"
    assert int(words[2]) + int(words[6]) == pytest.approx(256, abs=2)


def test_top_and_vmstat(served: Served) -> None:
    """They take the same numbers, and one CPU."""
    needs("top")
    top = served.run("top", "-b", "-n1")
    assert "256.0 total" in top
    needs("vmstat")
    assert "262144 K total memory" in served.run("vmstat", "-s")
    assert len(served.run("vmstat", "1", "2").splitlines()) == 4


def test_lscpu_and_uptime(served: Served) -> None:
    """One CPU on line, and up since the container has been."""
    needs("lscpu")
    lines = dict(line.split(":", 1) for line in served.run("lscpu").splitlines() if ":" in line)
    assert lines["CPU(s)"].strip() == "1"
    needs("uptime")
    assert " up " in served.run("uptime")
    up = float(served.run("cat", "/proc/uptime").split()[0])
    assert 0 <= up < 600


def test_node_takes_the_same(served: Served) -> None:
    """A runtime that reads the files by itself."""
    needs("node")
    script = "const o=require('os');console.log(o.totalmem(),o.cpus().length,o.uptime()<600,o.loadavg().length)"
    assert served.run("node", "-e", script).split() == [str(256 * MIB), "1", "true", "3"]


def test_sysctl_program(served: Served) -> None:
    """sysctl shows what is there, and sets what may be set."""
    needs("sysctl")
    listed = served.run("sysctl", "kernel.hostname", "net.core.somaxconn", "user.max_user_namespaces", "kernel.pid_max")
    assert len(listed.splitlines()) == 4
    assert "kernel.panic = 12" in served.run("sysctl", "-w", "kernel.panic=12")
    assert served.run("sysctl", "-n", "kernel.panic").strip() == "12"
    assert pathlib.Path("/proc/sys/kernel/panic").read_text().strip() != "12"
    assert served.try_to("sysctl", "-w", "kernel.panic=x").returncode != 0


def test_hostname_is_one(served: Served) -> None:
    """The sysctl and the system call tell and set the same."""
    served.run("sh", "-c", "echo written >/proc/sys/kernel/hostname")
    assert served.run("hostname").strip() == "written"
    served.run("hostname", "called")
    assert served.run("cat", "/proc/sys/kernel/hostname").strip() == "called"


@pytest.mark.parametrize(("path", "uid", "problem"), [
    ("kernel/panic", 1000, "Permission denied"), ("net/ipv4/ip_forward", 1000, "Permission denied"),
    ("vm/swappiness", 0, "Permission denied"), ("kernel/core_pattern", 0, "Permission denied"),
    ("kernel/panic", 0, "Invalid argument"), ("kernel/nosuch", 0, ""),
])  # fmt: skip
def test_refused_writes(served: Served, path: str, uid: int, problem: str) -> None:
    """As from the kernel: EACCES at open, EINVAL at write."""
    done = served.try_to("sh", "-c", f"echo nonsense | tee /proc/sys/{path}", uid=uid)
    assert f"tee: /proc/sys/{path}: {problem}" in done.stderr


def test_root_without_capabilities_is_stopped_at_open(served: Served) -> None:
    """EACCES for a network sysctl, as net_ctl_permissions() has it, though the file is root's."""
    drop = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")
    done = served.try_to(*drop, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
    assert "Permission denied" in done.stderr
    assert served.run(*drop, "cat", "/proc/sys/net/ipv4/ip_default_ttl").strip() == "64"


def test_inner_namespaces(served: Served) -> None:
    """A user namespace inside: its own network's sysctls are its own, the container's stay closed."""
    script = (
        "echo 77 >/proc/sys/net/ipv4/ip_default_ttl && cat /proc/sys/net/ipv4/ip_default_ttl;"
        "echo 1 >/proc/sys/kernel/panic || echo closed"
    )
    out = served.run("unshare", "-Urn", "sh", "-c", script)
    assert out.split() == ["77", "closed"]
    assert served.run("cat", "/proc/sys/net/ipv4/ip_default_ttl").strip() == "64"
    refused = served.try_to("unshare", "-Ur", "sh", "-c", "echo 5 >/proc/sys/net/ipv4/ip_default_ttl")
    assert "Permission denied" in refused.stderr


def test_secrets_of_the_host_stay_closed(served: Served) -> None:
    """What only the host's root may read is not read for a container's."""
    for path in ("/proc/sys/kernel/usermodehelper/bset", "/proc/sys/kernel/cad_pid"):
        if pathlib.Path(path).exists():
            assert "Permission denied" in served.try_to("cat", path).stderr


def test_network_devices_in_sysfs(served: Served) -> None:
    """/sys/devices/virtual/net has the container's devices, and their settings can be changed."""
    assert served.run("ls", "/sys/devices/virtual/net").split() == ["lo"]
    served.run("sh", "-c", "echo 4096 >/sys/devices/virtual/net/lo/mtu")
    assert served.run("cat", "/sys/devices/virtual/net/lo/mtu").strip() == "4096"
    assert pathlib.Path("/sys/devices/virtual/net/lo/mtu").read_text().strip() != "4096"
    assert served.try_to("sh", "-c", "echo 1 >/sys/devices/virtual/net/lo/mtu", uid=1000).returncode != 0


def test_many_at_once(served: Served) -> None:
    """Readers and writers of all kinds: no error, no mixed answer."""
    script = (
        "i=0; while [ $i -lt 8 ]; do i=$((i+1)); read -r a b </proc/uptime; echo $1 >/proc/sys/kernel/panic || exit 1;"
        "grep -q '^MemTotal: *262144 kB' /proc/meminfo || exit 2; read -r x </proc/sys/net/core/somaxconn || exit 3;"
        "read -r x </proc/sys/user/max_net_namespaces || exit 4; done"
    )
    enter = ["nsenter", "-t", str(served.subject.pid), "-U", "-n", "-m"]
    processes = [subprocess.Popen([*enter, "sh", "-c", script, "sh", str(number)]) for number in range(24)]
    assert [process.wait(100) for process in processes] == [0] * len(processes)


def test_stored_values_outlive_the_daemon(served: Served) -> None:
    """A daemon that was killed leaves values and namespaces as they were."""
    served.run("sysctl", "-qw", "kernel.panic=33", "net.core.somaxconn=99")
    before = served.daemon.kill()
    served.daemon.wait_for_another(before)
    assert served.run("sysctl", "-n", "kernel.panic", "net.core.somaxconn").split() == ["33", "99"]


def test_end_of_the_nursery_is_the_daemons(served: Served) -> None:
    """Without the process that makes others there is no way into a user namespace: another daemon comes, with one."""
    path = "/proc/sys/user/max_uts_namespaces"
    before, daemon = served.run("cat", path), served.daemon.pid()
    children = pathlib.Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split()
    (nursery,) = (int(pid) for pid in children if pathlib.Path(f"/proc/{pid}/comm").read_text() == "sysvisor-fs-ns\n")
    os.kill(nursery, signal.SIGKILL)
    served.daemon.wait_for_another(daemon)
    assert served.run("cat", path) == before


def test_two_containers(served: Served) -> None:
    """Another container sees none of the first one's values."""
    served.run("sysctl", "-qw", "kernel.panic=44")
    with fs_subject.subject(first=500000) as subject:
        other = Served(served.daemon, subject, "other")
        served.daemon.register("other", pid=subject.pid, first=500000)
        other.attach()
        assert other.run("sysctl", "-n", "kernel.panic").strip() != "44"
        assert other.run("cat", "/proc/sys/kernel/random/boot_id") != served.run(
            "cat", "/proc/sys/kernel/random/boot_id"
        )
        memory = other.run("sh", "-c", "grep MemTotal /proc/meminfo").split()[1]
        assert int(memory) > 256 << 10
        assert other.run("stat", "-c", "%U", "/proc/uptime", "/proc/sys/kernel/panic").split() == ["root", "root"]

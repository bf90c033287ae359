"""What a container is shown of memory, processors and disks, compared with the files of its real cgroups."""

import os
import pathlib
import select
import subprocess
import time
from collections.abc import Iterator

import pytest

from sysvisor_fs.node import File
from sysvisor_fs.nodes.tree import build_tree
from sysvisor_fs.views import cpu, files
from sysvisor_fs.views.hierarchy import home
from tests.support import fs_subject
from tests.support.fs_subject import Subject
from tests.support.runtime import wait_until

pytestmark = pytest.mark.root

TREE = build_tree()
MIB = 1 << 20


@pytest.fixture
def one() -> Iterator[Subject]:
    """A container with cgroups of its own."""
    with fs_subject.subject() as subject:
        yield subject


def file(one: Subject, path: str) -> File:
    return fs_subject.file_at(TREE, one.container, one.root, path)


def read(one: Subject, path: str) -> str:
    return file(one, path).read(one.container, one.root).decode()


def meminfo(one: Subject) -> dict[str, int]:
    return {line.split(":")[0]: int(line.split()[1]) for line in read(one, "proc/meminfo").splitlines()}


def limit(one: Subject, controller: str, **values: str | int) -> None:
    """Set limits: the v1 name of a file and of the v2 one are tried, and the directory above is meant with `above=`."""
    place = home(one.container, controller)
    assert place is not None
    for name, value in values.items():
        path = pathlib.Path(place.path, name.replace("__", "."))
        if path.exists():
            path.write_text(str(value))


def needs(one: Subject, controller: str, v2_file: str) -> pathlib.Path:
    """The directory of a controller."""
    place = home(one.container, controller)
    if place is None or (place.v2 and not pathlib.Path(place.path, v2_file).exists()):
        pytest.skip(f"no {controller} controller here; to force it: boot with it enabled")
    return pathlib.Path(place.path)


def started(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stdout.read(1) == b"x"


HOLD = """
memory = bytearray(b"x") * (30 << 20)
os.write(1, b"x")
os.read(0, 1)
"""


def test_memory_is_what_the_cgroup_says(one: Subject) -> None:
    """Limit, usage and the anonymous memory of a process of the container, to the byte or the counters' lag."""
    path = needs(one, "memory", "memory.max")
    limit(one, "memory", memory__max=128 * MIB, memory__limit_in_bytes=128 * MIB)
    started(one.inside(HOLD))
    found = meminfo(one)
    assert found["MemTotal"] == 128 << 10
    usage = next(
        int((path / n).read_text()) for n in ("memory.current", "memory.usage_in_bytes") if (path / n).exists()
    )
    assert usage > 30 * MIB
    assert found["MemTotal"] - found["MemFree"] == pytest.approx(usage >> 10, abs=4096)
    assert found["AnonPages"] >= 30 << 10
    assert found["MemFree"] <= found["MemAvailable"] <= found["MemTotal"]
    assert found["MemFree"] + found["AnonPages"] + found["Cached"] <= found["MemTotal"]


def test_limit_above_the_container_binds(one: Subject) -> None:
    """A limit that is set on the parent alone is the container's total."""
    above = needs(one, "memory", "memory.max").parent
    for name in ("memory.max", "memory.limit_in_bytes"):
        if (above / name).exists():
            (above / name).write_text(str(96 * MIB))
    assert meminfo(one)["MemTotal"] == 96 << 10


def test_without_limits_total_is_the_hosts(one: Subject) -> None:
    """The host's own MemTotal and swap."""
    needs(one, "memory", "memory.max")
    host = pathlib.Path("/proc/meminfo").read_text()
    found = meminfo(one)
    for name in ("MemTotal", "SwapTotal", "Hugepagesize"):
        assert f"{name}:" not in host or found[name] == int(host.partition(f"{name}:")[2].split()[0])


def test_new_limits_show_at_once(one: Subject) -> None:
    """An update of a running container needs no restart of anything."""
    needs(one, "memory", "memory.max")
    for size in (64, 256, 32):
        limit(one, "memory", memory__max=size * MIB, memory__limit_in_bytes=size * MIB)
        assert meminfo(one)["MemTotal"] == size << 10


def test_quota_is_seen_everywhere(one: Subject) -> None:
    """Half a CPU is one CPU in cpuinfo, stat, and /sys; lists and directories agree."""
    needs(one, "cpu", "cpu.max")
    limit(one, "cpu", cpu__max="50000 100000", cpu__cfs_quota_us=50000)
    assert read(one, "proc/cpuinfo").count("processor\t:") == 1
    stat = read(one, "proc/stat")
    assert "cpu0 " in stat
    assert "cpu1 " not in stat
    for name in ("online", "present", "possible"):
        assert read(one, f"sys/devices/system/cpu/{name}") == "0\n"
    directory = fs_subject.node_at(TREE, one.container, one.root, "sys/devices/system/cpu")
    names = [name for name, _ in directory.names(one.container, one.root)]  # type: ignore[attr-defined]
    assert [name for name in names if name[3:].isdigit()] == ["cpu0"]
    with pytest.raises(FileNotFoundError):
        directory.lookup(one.container, one.root, "cpu1")  # type: ignore[attr-defined]


def test_quota_above_the_container_binds(one: Subject) -> None:
    """The tightest of all levels counts."""
    above = needs(one, "cpu", "cpu.max").parent
    for name, value in (("cpu.max", "70000 100000"), ("cpu.cfs_quota_us", "70000")):
        if (above / name).exists():
            (above / name).write_text(value)
    assert len(cpu.visible(one.container)) == 1


def test_topology_is_renumbered(one: Subject) -> None:
    """A container on the host's last CPU alone has a cpu0 whose neighbours are itself."""
    path = needs(one, "cpuset", "cpuset.cpus.effective")
    last = (os.cpu_count() or 1) - 1
    if not (path / "cpuset.cpus").exists() or not last:
        pytest.skip("no second CPU or no cpuset; to force it: a machine with two")
    (path / "cpuset.cpus").write_text(f"{last}")
    assert cpu.visible(one.container) == (last,)
    base = "sys/devices/system/cpu/cpu0/topology"
    assert read(one, f"{base}/core_siblings_list") == "0\n"
    assert int(read(one, f"{base}/core_siblings").replace(",", ""), 16) == 1
    assert (
        read(one, f"{base}/core_id") == pathlib.Path(f"/sys/devices/system/cpu/cpu{last}/topology/core_id").read_text()
    )
    assert read(one, "proc/cpuinfo").startswith("processor\t: 0\n")


def test_cpu_time_is_the_cgroups(one: Subject) -> None:
    """What a process of the container has used is in /proc/stat, and none of what others have."""
    before = sum(cpu.usage_ns(one.container))
    one.inside("while True: pass")
    wait_until(lambda: sum(cpu.usage_ns(one.container)) > before + 10**8, 60, "CPU time of the cgroup")
    words = [int(word) for word in read(one, "proc/stat").splitlines()[0].split()[1:]]
    after = sum(cpu.usage_ns(one.container)) / 1e7
    assert before / 1e7 < words[0] + words[2] <= after


def test_uptime_and_boot_time_agree(one: Subject) -> None:
    """btime plus uptime is now."""
    up = float(read(one, "proc/uptime").split()[0])
    btime = int(read(one, "proc/stat").partition("btime ")[2].split()[0])
    assert btime + up == pytest.approx(time.time(), abs=3)


def test_disks_show_the_containers_writes(one: Subject, tmp_path: pathlib.Path) -> None:
    """A megabyte that is written past the cache is counted, for the container alone."""
    needs(one, "blkio", "io.stat")
    program = (
        "import mmap, sys\n"
        "fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_DIRECT)\n"
        "os.write(fd, mmap.mmap(-1, 1 << 20)); os.fsync(fd); os.write(1, b'x'); os.read(0, 1)"
    )
    process = one.inside(program, str(tmp_path / "file"))
    assert process.stdout is not None
    if process.stdout.read(1) != b"x":
        pytest.skip(f"{tmp_path} cannot be written past the cache; to force it: TMPDIR on a disk")
    device = os.stat(tmp_path).st_dev
    number = f"{os.major(device)} {os.minor(device)}"
    if not any(
        " ".join(line.split()[:2]) == number for line in pathlib.Path("/proc/diskstats").read_text().splitlines()
    ):
        pytest.skip(f"{tmp_path} is on no disk; to force it: TMPDIR on one")
    lines = [line.split() for line in read(one, "proc/diskstats").splitlines()]
    assert sum(int(words[9]) for words in lines) >= 2048, lines


def test_pressure_is_the_containers(one: Subject) -> None:
    """The cgroup's own figures; its trigger comes true when its processes wait for a CPU."""
    unified = one.container.cgroups.get("unified")
    if unified is None or not pathlib.Path(unified, "cpu.pressure").exists() or not os.path.exists("/proc/pressure"):
        pytest.skip("no pressure by cgroup here; to force it: a kernel with PSI and a unified hierarchy")
    assert read(one, "proc/pressure/cpu").startswith("some avg10=0.00")
    pressure = file(one, "proc/pressure/cpu")
    for bad in (b"some 1000 500000", b"none 1 2000000", b"some", b"some 1000 1000000"):
        with pytest.raises(OSError):
            pressure.trigger(one.container, one.root, bad)
    fd = pressure.trigger(one.container, one.root, b"some 10000 2000000\0")
    try:
        for _ in range(2):
            one.inside("os.sched_setaffinity(0, {0})\nwhile True: pass")
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        assert poll.poll(60_000)
    finally:
        os.close(fd)
    assert "total=0\n" not in read(one, "proc/pressure/cpu").splitlines()[0] + "\n"


def test_kept_descriptors_follow_a_cgroup_made_anew(one: Subject) -> None:
    """A cgroup that was removed and made again under its name is read anew."""
    place = next(iter(one.cgroups.values()))
    again = place / "again"
    again.mkdir()
    assert files.read(f"{again}/cgroup.procs") == b""
    again.rmdir()
    with pytest.raises(FileNotFoundError):
        files.read(f"{again}/cgroup.procs")
    again.mkdir()
    assert files.read(f"{again}/cgroup.procs") == b""
    again.rmdir()


def test_every_file_reads_without_any_cgroup(one: Subject) -> None:
    """A container in no cgroup that counts is still answered, never with an error but for pressure."""
    one.container.cgroups = {}
    for name in ("meminfo", "cpuinfo", "stat", "loadavg", "diskstats", "swaps", "uptime"):
        assert read(one, f"proc/{name}") or name == "diskstats"

"""linux.resources and cgroupsPath of a real container: limits as the kernel holds them, and as processes meet them."""

import os
import pathlib
import signal

import pytest

from sysvisor_runc.cgroup.layout import Hierarchy, detect
from tests.support.bundle import Bundle
from tests.support.inside import observe, start, user_namespace
from tests.support.runtime import Runtime

LAYOUT = detect()
V2 = LAYOUT.kind == "v2"
MIB = 1 << 20


def directory(pid: int, controller: str) -> pathlib.Path:
    """The host's path of a process's cgroup."""
    own = {}
    for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        own.update(dict.fromkeys(names.split(","), path))
    hierarchy = LAYOUT.by_controller()["unified" if V2 else controller]
    return pathlib.Path(hierarchy.mountpoint + own["" if V2 or controller == "unified" else controller])


def value(pid: int, v1: str, v2: str) -> str:
    """A control file, by its name on v1 (with the controller in front) and on v2."""
    return (directory(pid, v1.partition(".")[0]) / (v2 if V2 else v1)).read_text().strip()


def needs(*controllers: str) -> None:
    """Skip where this machine lacks one of them."""
    if V2:
        there = set(pathlib.Path(LAYOUT.unified.mountpoint, "cgroup.controllers").read_text().split())  # type: ignore[union-attr]
        there |= {"blkio"} if "io" in there else set()
    else:
        there = set(LAYOUT.by_controller())
    if not there.issuperset(controllers):
        pytest.skip(f"no cgroup controller {' '.join(set(controllers) - there)} here; to force it: make test-vm")


def test_memory(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Limit, reservation, swappiness; a process beyond the limit is killed, and told as such by its exit code."""
    needs("memory")
    memory = {"limit": 48 * MIB, "reservation": 24 * MIB} | ({} if V2 else {"swappiness": 10})
    bundle.linux["resources"] = {"memory": memory}
    name, pid = start(plain_runtime, bundle)
    assert value(pid, "memory.limit_in_bytes", "memory.max") == str(48 * MIB)
    assert value(pid, "memory.soft_limit_in_bytes", "memory.low") == str(24 * MIB)
    if not V2:
        assert value(pid, "memory.swappiness", "") == "10"
    # A tmpfs cannot be written back to anywhere: beyond the limit somebody has to go.
    hog = plain_runtime("exec", name, "/bin/sh", "-c", "exec head -c 66000000 /dev/zero >/dev/shm/file", check=False)
    assert hog.returncode == 128 + signal.SIGKILL
    assert plain_runtime.state(name)["status"] == "running"


def test_cpu(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Shares, quota, period, burst, and the CPUs and nodes to run on."""
    needs("cpu", "cpuset")
    last = max(os.sched_getaffinity(0))
    cpu = {"shares": 500, "quota": 40000, "period": 50000, "burst": 10000, "cpus": str(last), "mems": "0"}
    bundle.linux["resources"] = {"cpu": cpu}
    name, pid = start(plain_runtime, bundle)
    if V2:
        assert value(pid, "", "cpu.max") == "40000 50000"
    else:
        files = ("cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us")
        assert [value(pid, file, "") for file in files] == ["500", "40000", "50000", "10000"]
    assert value(pid, "cpuset.cpus", "cpuset.cpus") == str(last)
    assert value(pid, "cpuset.mems", "cpuset.mems") == "0"
    assert os.sched_getaffinity(pid) == {last}
    joined = plain_runtime("exec", name, "/bin/grep", "Cpus_allowed_list", "/proc/self/status").stdout
    assert joined.split()[1] == str(last)


def test_cpu_idle(plain_runtime: Runtime, bundle: Bundle) -> None:
    """A container that runs only when nobody else wants to."""
    needs("cpu")
    bundle.linux["resources"] = {"cpu": {"idle": 1}}
    _, pid = start(plain_runtime, bundle)
    assert value(pid, "cpu.idle", "cpu.idle") == "1"


def test_pids(plain_runtime: Runtime, bundle: Bundle) -> None:
    """The kernel refuses the fork beyond the limit; -1 is none."""
    needs("pids")
    bundle.linux["resources"] = {"pids": {"limit": 3}}
    name, pid = start(plain_runtime, bundle)
    assert value(pid, "pids.max", "pids.max") == "3"
    many = plain_runtime("exec", name, "/bin/sh", "-c", "for i in 1 2 3 4; do sleep 1 & done; wait", check=False)
    assert "fork" in many.stderr
    bundle.linux["resources"] = {"pids": {"limit": -1}}
    _, pid = start(plain_runtime, bundle)
    assert value(pid, "pids.max", "pids.max") == "max"


def block_device() -> tuple[int, int]:
    """A whole disk of this machine."""
    for path in sorted(pathlib.Path("/sys/block").iterdir()):
        if not path.name.startswith(("loop", "ram", "zram", "sr")):
            major, minor = (path / "dev").read_text().split(":")
            return int(major), int(minor)
    pytest.skip("no disk to limit; to force it: attach one")


def test_block_io(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Throttles in bytes and operations, for reading and writing."""
    needs("blkio")
    major, minor = block_device()
    keys = ("throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice", "throttleWriteIOPSDevice")
    limits = {key: [{"major": major, "minor": minor, "rate": 1000 * n}] for n, key in enumerate(keys, 5)}
    bundle.linux["resources"] = {"blockIO": limits}
    _, pid = start(plain_runtime, bundle)
    if V2:
        assert value(pid, "", "io.max") == f"{major}:{minor} rbps=5000 wbps=6000 riops=7000 wiops=8000"
        return
    files = ("read_bps", "write_bps", "read_iops", "write_iops")
    found = [value(pid, f"blkio.throttle.{file}_device", "") for file in files]
    assert found == [f"{major}:{minor} {1000 * n}" for n in (5, 6, 7, 8)]


@pytest.mark.parametrize(
    ("controller", "resources"),
    [
        ("rdma", {"rdma": {"mlx5_0": {"hcaHandles": 3}}}),
        ("net_cls", {"network": {"classID": 0x100001}}),
        ("hugetlb", {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]}),
        ("nonsense", {"unified": {"cgroup.nonsense": "1"}}),
    ],
)
def test_what_this_machine_cannot_limit(
    plain_runtime: Runtime, bundle: Bundle, controller: str, resources: dict[str, object]
) -> None:
    """A missing controller, file or nonsense is one line that names it; nothing is left."""
    there = set(LAYOUT.by_controller())
    if controller in there:
        pytest.skip(f"this machine has {controller}; to force it: unmount it")
    if V2 and controller in ("net_cls", "hugetlb"):
        pytest.skip("v2 ignores it or has it; to force it: boot with v1")
    bundle.linux["resources"] = resources
    bundle.run("/bin/true")
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert controller in error or "linux.resources.unified" in error


def test_a_limit_too_low_to_start(plain_runtime: Runtime, bundle: Bundle) -> None:
    """The kernel kills init before it can say anything: the cgroup tells why."""
    needs("memory")
    bundle.linux["resources"] = {"memory": {"limit": 1 << 16}}
    bundle.run("/bin/true")
    assert "OOM-killed" in plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr


@pytest.mark.parametrize("form", ["/{}/deep/er", "{}/relative", "/{}//odd/./one"])
def test_cgroups_path(plain_runtime: Runtime, bundle: Bundle, form: str) -> None:
    """Absolute from the top, relative below the caller's own (on v2 beside it); gone with the container."""
    bundle.linux["cgroupsPath"] = form.format(plain_runtime.token)
    name, pid = start(plain_runtime, bundle)

    def base(hierarchy: Hierarchy) -> pathlib.Path:
        top, own = pathlib.Path(hierarchy.mountpoint), pathlib.Path(hierarchy.own)
        if form.startswith("/"):
            return top
        return own.parent if V2 and own != top else own

    key = "unified" if V2 else "pids"
    path = directory(pid, key)
    expected = base(LAYOUT.by_controller()[key]) / os.path.normpath(form.format(plain_runtime.token).lstrip("/"))
    assert path == expected
    plain_runtime("delete", "--force", name)
    assert not path.exists()
    # What was made above it for it is empty, and the test's to remove.
    for hierarchy in LAYOUT.by_controller().values():
        start_of = base(hierarchy) / plain_runtime.token
        if start_of.exists():
            for found in sorted((p for p in start_of.rglob("*") if p.is_dir()), reverse=True):
                found.rmdir()
            start_of.rmdir()


def test_a_path_that_climbs(plain_runtime: Runtime, bundle: Bundle) -> None:
    """`..` cannot lead out of the cgroup mount."""
    bundle.linux["cgroupsPath"] = f"../../../../{plain_runtime.token}"
    bundle.run("/bin/true")
    result = plain_runtime("run", "--bundle", bundle.path, plain_runtime.id(), check=False)
    assert not pathlib.Path("/", plain_runtime.token).exists()
    assert result.returncode == 0 or "linux.cgroupsPath" in result.stderr


@pytest.mark.parametrize("userns", [False, True])
def test_the_cgroup_mount(plain_runtime: Runtime, bundle: Bundle, userns: bool) -> None:
    """It shows the container's own cgroup as the root, with its limits, read-only when asked for."""
    needs("pids")
    if userns:
        user_namespace(bundle)
    bundle.linux["resources"] = {"pids": {"limit": 77}}
    place = "/sys/fs/cgroup" if V2 else "/sys/fs/cgroup/pids"
    seen: dict[str, str] = {}
    for options in (["nosuid", "noexec", "nodev", "ro"], ["nosuid", "noexec", "nodev"]):
        for mount in bundle.config["mounts"]:
            if mount["destination"] == "/sys/fs/cgroup":
                mount["options"] = options
        seen = observe(
            plain_runtime,
            bundle,
            limit=f"cat {place}/pids.max",
            procs=f"grep -c . {place}/cgroup.procs",
            make=f"mkdir {place}/inner && echo made; true",
            names="ls /sys/fs/cgroup",
        )
        assert seen["limit"] == "77"
        assert int(seen["procs"]) >= 1
        if "ro" in options:
            assert "Read-only" in seen["make"]
        elif not userns:
            assert seen["make"] == "made"
    if not V2:
        expected = {os.path.basename(h.mountpoint) for h in LAYOUT.by_controller().values()}
        assert set(seen["names"].split()) >= expected


def test_without_a_cgroup_namespace_it_is_bound(plain_runtime: Runtime, bundle: Bundle) -> None:
    """The mount still shows the container's own cgroup only."""
    needs("pids")
    bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != "cgroup"]
    bundle.linux["resources"] = {"pids": {"limit": 55}}
    place = "/sys/fs/cgroup" if V2 else "/sys/fs/cgroup/pids"
    assert observe(plain_runtime, bundle, limit=f"cat {place}/pids.max")["limit"] == "55"


def test_a_cgroup_in_use_is_refused(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Two containers cannot share one: the second one's limits would be the first one's."""
    bundle.linux["cgroupsPath"] = f"/{plain_runtime.token}-shared"
    name, pid = start(plain_runtime, bundle)
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert f"{plain_runtime.token}-shared" in error
    assert plain_runtime.state(name) and pathlib.Path(f"/proc/{pid}").exists()


def test_everything_joins_on_a_hybrid_machine(plain_runtime: Runtime, bundle: Bundle) -> None:
    """The container is in a cgroup of its own in every hierarchy, cgroup2 included."""
    name, pid = start(plain_runtime, bundle)
    lines = pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    assert all(line.endswith(f"/{name}") for line in lines), lines
    joined = plain_runtime("exec", name, "/bin/cat", "/proc/self/cgroup").stdout.splitlines()
    assert all(line.endswith(":/") for line in joined), joined

"""--systemd-cgroup: containers as units of a real systemd, which must be pid 1.

Elsewhere `tests/kernel/test_uml.py` runs this file in a guest.
"""

import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support import leaks
from tests.support.bundle import Bundle
from tests.support.runtime import Runtime, wait_until

BOOTED = pathlib.Path("/run/systemd/system").is_dir() and pathlib.Path("/proc/1/comm").read_text() == "systemd\n"
V2 = pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists()
needs_systemd = pytest.mark.skipif(
    not BOOTED, reason="systemd is not pid 1 here; to force it: make test-vm, or tests/kernel/test_uml.py"
)


@pytest.fixture
def units(workplace: pathlib.Path) -> Iterator[Runtime]:
    """A plain runtime with the systemd driver; afterwards no unit of it may be left."""
    yield from _checked(Runtime(workplace, "--systemd-cgroup", "--no-syscont", "--no-sysvisor-fs"))


@pytest.fixture
def machines(workplace: pathlib.Path) -> Iterator[Runtime]:
    """The same making system containers."""
    yield from _checked(Runtime(workplace, "--systemd-cgroup", "--no-sysvisor-fs"))


def _checked(runtime: Runtime) -> Iterator[Runtime]:
    yield runtime
    runtime.clean()
    assert leaks.find(runtime) == []
    assert runtime.token not in systemctl("list-units", "--all", "--plain", "--no-legend")


def systemctl(*args: str) -> str:
    done = subprocess.run(["systemctl", "--no-pager", *args], capture_output=True, text=True, timeout=60)
    return done.stdout


def show(unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit by name."""
    lines = systemctl("show", unit, *(f"--property={name}" for name in names)).splitlines()
    return dict(line.split("=", 1) for line in lines)


def cgroup(runtime: Runtime, container: str, controller: str) -> pathlib.Path:
    """The directory of a container's cgroup, by the file that its init is in."""
    pid = runtime.state(container)["pid"]
    for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(",") or (V2 and not names):
            return pathlib.Path(f"/sys/fs/cgroup{'' if V2 else '/' + names}{path}")
    raise AssertionError(f"{container} is in no {controller} cgroup")


def start(runtime: Runtime, bundle: Bundle, *args: str) -> str:
    """Run a container in the background; its id."""
    container = runtime.id()
    runtime("run", "--detach", "--bundle", bundle.path, *args, container)
    return container


@pytest.fixture
def sleeper(new_bundle: Callable[..., Bundle]) -> Bundle:
    return new_bundle("/bin/sleep", "1000").save()


@needs_systemd
def test_container_is_a_scope_of_its_own(units: Runtime, sleeper: Bundle) -> None:
    """Without a cgroupsPath the container is runc-ID.scope in system.slice, delegated, with its init in there."""
    container = start(units, sleeper)
    unit = f"runc-{container}.scope"
    assert show(unit, "Slice", "Delegate", "Description", "ActiveState", "DefaultDependencies", "NeedDaemonReload") == {
        "Slice": "system.slice",
        "Delegate": "yes",
        "Description": f"libcontainer container {container}",
        "ActiveState": "active",
        "DefaultDependencies": "no",
        "NeedDaemonReload": "no",
    }
    for line in pathlib.Path(f"/proc/{units.state(container)['pid']}/cgroup").read_text().splitlines():
        assert line.endswith(f":/system.slice/{unit}")
    units("delete", "--force", container)
    assert show(unit, "LoadState") == {"LoadState": "not-found"}


@needs_systemd
def test_place_comes_from_the_cgroups_path(units: Runtime, sleeper: Bundle) -> None:
    """`slice:prefix:name` names slice and scope, and a dash in a slice's name is a level."""
    name = units.token
    sleeper.linux["cgroupsPath"] = f"svt-inner.slice:pre:{name}"
    container = start(units, sleeper.save())
    assert show(f"pre-{name}.scope", "ControlGroup") == {"ControlGroup": f"/svt.slice/svt-inner.slice/pre-{name}.scope"}
    assert units("ps", "--format", "json", container).json == [units.state(container)["pid"]]


@needs_systemd
def test_name_of_a_slice_makes_a_slice(units: Runtime, sleeper: Bundle) -> None:
    """A name that ends in .slice is the unit itself, and the container lives in it."""
    name = units.token.replace("-", "_")
    sleeper.linux["cgroupsPath"] = f"::{name}.slice"
    container = start(units, sleeper.save())
    assert show(f"{name}.slice", "ActiveState") == {"ActiveState": "active"}
    assert cgroup(units, container, "memory").name == f"{name}.slice"
    units("delete", "--force", container)
    assert name not in systemctl("list-units", "--all", "--plain", "--no-legend")


@needs_systemd
def test_path_of_cgroupfs_is_refused(units: Runtime, sleeper: Bundle) -> None:
    """What is no slice:prefix:name is told so, in one line."""
    sleeper.linux["cgroupsPath"] = "/somewhere"
    result = units.fails("run", "--detach", "--bundle", sleeper.save().path, units.id())
    assert 'expected cgroupsPath to be of format "slice:prefix:name"' in result.stderr


@needs_systemd
def test_limits_are_properties_and_files(units: Runtime, sleeper: Bundle) -> None:
    """systemd knows the limits, rounds the quota to whole percents, and the files say the same."""
    sleeper.linux["resources"] = {
        "memory": {"limit": 48 << 20, "reservation": 24 << 20},
        "cpu": {"shares": 1024, "quota": 12345, "period": 100000},
        "pids": {"limit": 42},
    }
    container = start(units, sleeper.save())
    wanted = {"CPUQuotaPerSecUSec": "130ms", "CPUQuotaPeriodUSec": "100ms", "TasksMax": "42"}
    if V2:
        wanted |= {"MemoryMax": str(48 << 20), "MemoryLow": str(24 << 20), "CPUWeight": "100"}
    else:
        wanted |= {"MemoryLimit": str(48 << 20), "CPUShares": "1024"}
    unit = f"runc-{container}.scope"
    assert show(unit, *wanted) == wanted
    cpu, memory, pids = (cgroup(units, container, name) for name in ("cpu", "memory", "pids"))
    assert (cpu / ("cpu.max" if V2 else "cpu.cfs_quota_us")).read_text().split()[0] == "13000"
    assert (memory / ("memory.max" if V2 else "memory.limit_in_bytes")).read_text() == f"{48 << 20}\n"
    assert (pids / "pids.max").read_text() == "42\n"


@needs_systemd
def test_update_tells_systemd(units: Runtime, sleeper: Bundle) -> None:
    """`update` changes property and file, and neither where a value is refused; a reload of systemd keeps them."""
    container = start(units, sleeper)
    unit, memory = f"runc-{container}.scope", "MemoryMax" if V2 else "MemoryLimit"
    units("update", "--memory", "64M", "--pids-limit", "33", "--cpu-quota", "20001", container)
    wanted = {memory: str(64 << 20), "TasksMax": "33", "CPUQuotaPerSecUSec": "210ms"}
    assert show(unit, *wanted) == wanted
    systemctl("daemon-reload")
    directory = cgroup(units, container, "memory")
    assert (directory / ("memory.max" if V2 else "memory.limit_in_bytes")).read_text() == f"{64 << 20}\n"
    units.fails("update", "--pids-limit", "22", "--cpuset-cpus", "4000", container)
    assert show(unit, "TasksMax") == {"TasksMax": "33"}
    assert (cgroup(units, container, "pids") / "pids.max").read_text() == "33\n"


@needs_systemd
def test_annotations_are_properties(units: Runtime, sleeper: Bundle) -> None:
    """org.systemd.property.* set properties, seconds become microseconds, and nonsense leaves nothing."""
    sleeper.config["annotations"] = {
        "org.systemd.property.TimeoutStopSec": "7",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
    }
    container = start(units, sleeper.save())
    assert show(f"runc-{container}.scope", "TimeoutStopUSec", "CollectMode") == {
        "TimeoutStopUSec": "7s",
        "CollectMode": "inactive-or-failed",
    }
    for name, value in (("CollectMode", "uint64"), ("NoSuchProperty", "1"), ("CollectMode", "5")):
        sleeper.config["annotations"] = {f"org.systemd.property.{name}": value}
        units.fails("run", "--detach", "--bundle", sleeper.save().path, units.id())
    assert units.ids() == [container]


@needs_systemd
def test_unit_of_another_is_left_alone(units: Runtime, sleeper: Bundle) -> None:
    """A second container of the same unit name is refused, and the first one lives on."""
    sleeper.linux["cgroupsPath"] = f"::{units.token}"
    first = start(units, sleeper.save())
    result = units.fails("run", "--detach", "--bundle", sleeper.path, units.id())
    assert "systemctl status" in result.stderr
    assert units.state(first)["status"] == "running"
    assert units.ids() == [first]


@needs_systemd
def test_failed_unit_is_forgotten(units: Runtime, sleeper: Bundle) -> None:
    """A scope that systemd ended as failed stands in nobody's way, and `delete` has systemd forget it."""
    sleeper.linux["cgroupsPath"] = f":x:{units.token}"
    sleeper.config["annotations"] = {
        "org.systemd.property.RuntimeMaxSec": "1",
        "org.systemd.property.TimeoutStopSec": "1",
    }
    unit = f"x-{units.token}.scope"
    first = start(units, sleeper.save())
    wait_until(lambda: show(unit, "ActiveState") == {"ActiveState": "failed"}, 20, "the scope's failure")
    sleeper.config["annotations"] = {}
    second = start(units, sleeper.save())
    assert show(unit, "ActiveState") == {"ActiveState": "active"}
    units("delete", "--force", second)
    units("delete", "--force", first)


@needs_systemd
def test_devices_outlive_a_reload(units: Runtime, new_bundle: Callable[..., Bundle]) -> None:
    """What systemd applies again after a reload allows what the container may use, and nothing else."""
    bundle = new_bundle("/bin/sleep", "1000")
    bundle.linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    bundle.linux["devices"] = [{"type": "c", "path": "/dev/kmsg", "major": 1, "minor": 11}]
    container = start(units, bundle.save())
    for command in ((), ("daemon-reload",), ("set-property", "--runtime", f"runc-{container}.scope", "TasksMax=50")):
        if command:
            systemctl(*command)
        units("exec", container, "/bin/sh", "-c", "echo x >/dev/null && ! (: </dev/kmsg) 2>/dev/null")


@needs_systemd
def test_life_of_a_container(units: Runtime, sleeper: Bundle) -> None:
    """exec joins the unit; pause, resume and kill work; once init is dead systemd ends the scope by itself."""
    container = units.id()
    units("create", "--bundle", sleeper.path, container)
    assert units.state(container)["status"] == "created"
    units("start", container)
    units("exec", "--detach", container, "/bin/sleep", "1001")
    assert len(units("ps", "--format", "json", container).json) == 2
    units("pause", container)
    assert units.state(container)["status"] == "paused"
    units("resume", container)
    units("kill", container, "KILL")
    units.wait_status(container, "stopped")
    unit = f"runc-{container}.scope"
    wait_until(lambda: show(unit, "ActiveState") == {"ActiveState": "inactive"}, 10, "the scope's end")
    units("delete", container)


@needs_systemd
def test_host_cgroup_namespace(units: Runtime, new_bundle: Callable[..., Bundle]) -> None:
    """Without a cgroup namespace the container's /sys/fs/cgroup shows its unit's cgroups."""
    bundle = new_bundle()
    bundle.linux["namespaces"] = [one for one in bundle.linux["namespaces"] if one["type"] != "cgroup"]
    file = "cgroup.procs" if V2 else "pids/cgroup.procs"
    bundle.sh(f"grep -qx $$ /sys/fs/cgroup/{file} || grep -q . /sys/fs/cgroup/{file}")
    units("run", "--bundle", bundle.path, units.id())


@needs_systemd
def test_machine_owns_what_is_below_its_unit(machines: Runtime, new_bundle: Callable[..., Bundle]) -> None:
    """A system container makes cgroups below its unit and cannot raise the unit's limits; its init is in a leaf."""
    bundle = new_bundle("/bin/sleep", "1000")
    bundle.linux["resources"] = {"pids": {"limit": 64}}
    container = start(machines, bundle.save(), "--uid-shift", "chown")
    leaf = cgroup(machines, container, "pids")
    assert leaf.parent.name == f"runc-{container}.scope"
    top = "/sys/fs/cgroup" if V2 else "/sys/fs/cgroup/pids"
    machines("exec", container, "/bin/mkdir", f"{top}/mine")
    # In there the leaf is the top of v1's hierarchies, and the unit the top of v2's.
    assert (leaf.parent / "mine" if V2 else leaf / "mine").is_dir()
    machines("exec", container, "/bin/sh", "-c", f"! echo 99 2>/dev/null >{top}/pids.max")
    assert (leaf.parent / "pids.max").read_text() == "64\n"


@needs_systemd
@pytest.mark.parametrize("action", ["fail", "kill"])
@pytest.mark.parametrize("step", ["init", "settings", "child-mounts"])
def test_broken_off_launch_leaves_nothing(action: str, step: str, units: Runtime, sleeper: Bundle) -> None:
    """A launch that fails, or is killed and then deleted, leaves neither a unit nor cgroups (the fixture looks)."""
    container = units.id()
    environment = {**os.environ, "SYSVISOR_RUNC_FAULT": f"{action}:{step}"}
    result = units("create", "--bundle", sleeper.path, container, check=False, env=environment)
    assert result.returncode != 0
    if action == "kill":
        units("delete", "--force", container)
    unit = f"runc-{container}.scope"
    wait_until(lambda: show(unit, "LoadState") == {"LoadState": "not-found"}, 10, f"the end of {unit}")


@pytest.mark.skipif(BOOTED, reason="systemd runs here; to force it: a machine without systemd")
def test_without_systemd_there_is_one_clear_line(workplace: pathlib.Path, bundle: Bundle) -> None:
    """Where systemd is not running, --systemd-cgroup says so with a hint and leaves nothing."""
    runtime = Runtime(workplace, "--systemd-cgroup", "--no-syscont", "--no-sysvisor-fs")
    result = runtime.fails("run", "--bundle", bundle.save().path, runtime.id())
    assert "systemd not running on this host" in result.stderr
    assert "leave out --systemd-cgroup" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert leaks.find(runtime) == []

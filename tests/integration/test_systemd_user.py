"""Containers of an ordinary user in cgroups that are the user's own: by `systemd --user`, or a delegated directory.

Needs systemd as pid 1 and cgroup v2, as in the guests of `tests/kernel/test_uml.py`; a minute there is too long for
every run of the suite.
"""

import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.integration.test_rootless import UID, owned, user_runtime
from tests.integration.test_systemd_driver import BOOTED, V2
from tests.support.bundle import Bundle
from tests.support.runtime import Runtime, wait_until

__all__ = ["owned", "user_runtime"]
pytestmark = pytest.mark.skipif(not (BOOTED and V2), reason="no systemd with cgroup v2; to force it: boot with them")

MIB = 1 << 20
TOP = pathlib.Path("/sys/fs/cgroup")

# The user is known in a mount namespace alone, so that User= cannot name it: what it would do is done here.
START = """
for file in passwd subuid subgid; do mount --bind {directory}/etc/$file /etc/$file; done
for file in . cgroup.procs cgroup.subtree_control cgroup.threads; do chown {uid}:{uid} {cgroup}/$file; done
export XDG_RUNTIME_DIR={directory}/runtime HOME={directory}/home
exec setpriv --reuid {uid} --regid {uid} --clear-groups --inh-caps=-all /lib/systemd/systemd --user
"""


class Manager:
    """A service manager of the user of `user_runtime`, as logging in would start it."""

    def __init__(self, runtime: Runtime) -> None:
        directory = runtime.directory
        self.runtime_directory = directory / "runtime"
        self.unit = f"user-manager-{runtime.token}.service"
        self.cgroup = TOP / "system.slice" / self.unit
        script = START.format(directory=directory, uid=UID, cgroup=self.cgroup)
        subprocess.run(
            ["systemd-run", "--quiet", f"--unit={self.unit}", "-pDelegate=yes", "-pType=notify", "-pNotifyAccess=all",
             "unshare", "-m", "sh", "-ec", script],
            check=True, timeout=90,
        )  # fmt: skip

    def systemctl(self, *args: str) -> str:
        """What the user's own `systemctl --user` says."""
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(self.runtime_directory)}
        done = subprocess.run(
            ["systemctl", "--user", "--no-pager", *args], user=UID, group=UID, extra_groups=[], env=environment,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return done.stdout

    def place(self, runtime: Runtime) -> pathlib.Path:
        """A cgroup of the user's with one in it where the user's commands run from now on, as in a scope."""
        place = self.cgroup / "place"
        for path in (place, place / "shell"):
            path.mkdir()
            for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
                os.chown(path / name, UID, UID)
        wrapper = runtime.directory / "as-user"
        text = wrapper.read_text()
        wrapper.write_text(text.replace("exec unshare", f"echo $$ >{place}/shell/cgroup.procs\nexec unshare"))
        return place

    def stop(self) -> None:
        subprocess.run(["systemctl", "stop", self.unit], check=True, timeout=90)
        subprocess.run(["systemctl", "reset-failed", self.unit], check=False, timeout=90, capture_output=True)


@pytest.fixture
def manager(user_runtime: Runtime) -> Iterator[Manager]:
    """The user's service manager; afterwards no unit of a container may be left."""
    made = Manager(user_runtime)
    yield made
    user_runtime.clean()
    left = made.systemctl("list-units", "--all", "--plain", "--no-legend", "*.scope")
    made.stop()
    assert user_runtime.token not in left


@pytest.fixture
def units(user_runtime: Runtime, manager: Manager) -> Runtime:
    """The user's `sysvisor-runc --systemd-cgroup`."""
    user_runtime.flags = ("--systemd-cgroup", *user_runtime.flags)
    manager.place(user_runtime)
    return user_runtime


def start(runtime: Runtime, bundle: Bundle, **resources: object) -> tuple[str, pathlib.Path]:
    """A container that sleeps, and its init's cgroup."""
    bundle.run("/bin/sleep", "1000")
    bundle.linux["resources"] = resources
    bundle.save()
    name = runtime.id()
    runtime("run", "--detach", "--bundle", bundle.path, name)
    own = pathlib.Path(f"/proc/{runtime.state(name)['pid']}/cgroup").read_text().strip().removeprefix("0::")
    return name, TOP / own.lstrip("/")


def test_container_is_a_scope_of_the_user(units: Runtime, manager: Manager, owned: Bundle) -> None:
    """The manager makes it, in its user's slice and with the limits; every command acts on it; it ends with init."""
    name, cgroup = start(units, owned, memory={"limit": 64 * MIB}, pids={"limit": 50})
    unit = f"runc-{name}.scope"
    scope = manager.cgroup / "user.slice" / unit
    assert scope in (cgroup, *cgroup.parents)
    assert "Delegate=yes" in manager.systemctl("show", unit, "-pDelegate")
    assert ((scope / "memory.max").read_text(), (scope / "pids.max").read_text()) == (f"{64 * MIB}\n", "50\n")
    units("update", "--pids-limit", "40", name)
    assert (scope / "pids.max").read_text() == "40\n"
    assert "TasksMax=40" in manager.systemctl("show", unit, "-pTasksMax")
    assert units("exec", name, "cat", "/proc/self/cgroup").stdout.startswith("0::/")
    units("pause", name)
    assert units.state(name)["status"] == "paused"
    units("resume", name)
    assert str(units.state(name)["pid"]) in units("ps", name).stdout
    units("kill", name, "KILL")
    units.wait_status(name, "stopped", 30)
    units("delete", name)
    wait_until(lambda: not scope.exists(), 30, "an end of the scope")


def test_over_the_users_bus(units: Runtime, manager: Manager, owned: Bundle) -> None:
    """Where the manager's own socket is not to be had, the bus is asked; a machine owns what is below its scope."""
    wait_until((manager.runtime_directory / "bus").exists, 30, "the bus")
    private = manager.runtime_directory / "systemd/private"
    private.rename(private.with_name("elsewhere"))
    name, cgroup = start(units, owned, memory={"limit": 64 * MIB})
    scope = manager.cgroup / "user.slice" / f"runc-{name}.scope"
    assert scope in (cgroup, *cgroup.parents)
    script = "cd /sys/fs/cgroup && mkdir inner && ls inner/cgroup.procs; echo max >memory.max"
    done = units("exec", name, "sh", "-c", script, check=False)
    assert done.stdout == "inner/cgroup.procs\n"
    assert done.returncode != 0
    units("delete", "--force", name)
    private.with_name("elsewhere").rename(private)


def test_in_a_delegated_cgroup(user_runtime: Runtime, manager: Manager, owned: Bundle) -> None:
    """Without systemd's help the cgroup is made beside the caller's, if that has been delegated, with its limits."""
    place = manager.place(user_runtime)
    name, cgroup = start(user_runtime, owned, pids={"limit": 33})
    assert place in cgroup.parents
    assert (place / name / "pids.max").read_text() == "33\n"
    user_runtime("delete", "--force", name)
    assert not (place / name).exists()

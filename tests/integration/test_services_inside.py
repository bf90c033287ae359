"""Containers as services of the systemd inside a system container, and what becomes of them when that reboots.

The machine has the host's /usr and an /etc of its own. `test_services.py` itself runs in there, as it does in a guest.
"""

import pathlib
import shutil
import subprocess
import sys
import sysconfig

import pytest

from tests.support.bundle import Bundle, default_config, make_rootfs
from tests.support.machine import Machine
from tests.support.runtime import SOURCE, Runtime, wait_until

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

SYSTEMD = pathlib.Path("/lib/systemd/systemd")
DIRECTORIES = ("etc", "usr", "var/lib/sysvisor/bundles", "var/log", "run", "tmp", "root", "proc", "sys", "dev")
# What users, libraries and alternatives the host's /usr expects.
OF_THE_HOST = ("passwd", "group", "nsswitch.conf", "ld.so.cache", "os-release")


@pytest.fixture
def bundle(workplace: pathlib.Path) -> Bundle:
    """A machine with the host's programs and these sources, both to be read only."""
    if not SYSTEMD.exists():
        pytest.skip("no systemd installed here; to force it: apt-get install systemd")
    made = Bundle(workplace / "machine", default_config())
    rootfs = made.path / "rootfs"
    for name in DIRECTORIES:
        (rootfs / name).mkdir(parents=True)
    (rootfs / "tmp").chmod(0o1777)
    for name in ("bin", "sbin", "lib", "lib64"):
        (rootfs / name).symlink_to(f"usr/{name}")
    for name in OF_THE_HOST:
        shutil.copy(f"/etc/{name}", rootfs / "etc")
    shutil.copytree("/etc/alternatives", rootfs / "etc/alternatives", symlinks=True)
    (rootfs / "etc/machine-id").touch()
    # It cannot have them in a user namespace.
    for unit in ("sys-kernel-debug.mount", "sys-kernel-tracing.mount"):
        (rootfs / "etc/systemd/system").mkdir(parents=True, exist_ok=True)
        (rootfs / "etc/systemd/system" / unit).symlink_to("/dev/null")
    made.config["root"]["readonly"] = False
    for path in dict.fromkeys((pathlib.Path("/usr"), SOURCE, pathlib.Path(sys.prefix))):
        (rootfs / path.relative_to("/")).mkdir(parents=True, exist_ok=True)
        mount = {"destination": str(path), "type": "bind", "source": str(path), "options": ["rbind", "ro"]}
        made.config["mounts"].append(mount)
    made.path.chmod(0o755)
    return made.run("/sbin/init")


def boot(runtime: Runtime, bundle: Bundle, *flags: str) -> Machine:
    name = runtime.id()
    runtime("run", "--detach", *flags, "--bundle", bundle.path, name)
    machine = Machine(runtime, bundle, None, name)
    machine.wait_booted()
    return machine


def run_tests(machine: Machine, name: str, select: str) -> str:
    """Run a file of integration tests inside, or what `select` (-k) picks of it; what pytest printed."""
    packages = sysconfig.get_paths()["purelib"]
    python = f"env PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={packages} {sys.executable}"
    options = f"-q -rs -p no:cacheprovider -o addopts=--import-mode=importlib -k '{select}'"
    return machine.sh(
        f"cd {SOURCE}; {python} -m pytest {options} tests/integration/{name} 2>&1", check=False, timeout=240
    )


def test_services_of_the_machine(runtime: Runtime, bundle: Bundle) -> None:
    """Start, readiness, main process, cgroup, journal, watchdog, sockets, crash and stop are as on any machine."""
    said = run_tests(boot(runtime, bundle), "test_services.py", "not reboot")
    assert " passed" in said, said
    assert "failed" not in said and "error" not in said and "skipped" not in said, said


def test_the_supervisor_of_the_machine(runtime: Runtime, bundle: Bundle) -> None:
    """As a service it is started by its socket, restarted, and gets its terminals back from systemd."""
    said = run_tests(boot(runtime, bundle), "test_supervisor_service.py", "first_container or killed")
    assert " passed" in said, said
    assert "failed" not in said and "error" not in said and "skipped" not in said, said


def test_the_machine_reboots(runtime: Runtime, bundle: Bundle) -> None:
    """An enabled service runs again after `systemctl reboot` inside, which its supervisor makes a restart of.

    Program and units are as `make install` makes them for another prefix.
    """
    rootfs = bundle.path / "rootfs"
    prefix = pathlib.Path("/opt/sysvisor")
    command = ["make", "install", f"PREFIX={prefix}", f"DESTDIR={rootfs}"]
    done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    inner = Bundle(rootfs / "var/lib/sysvisor/bundles/box", default_config())
    make_rootfs(inner.path / "rootfs")
    inner.config["root"]["readonly"] = False
    inner.config["annotations"] = {"org.sysvisor.syscont-mode": "false"}  # the machine has no ids to give away
    inner.sh("trap 'exit 0' TERM; while :; do sleep 0.1; done").save()
    units = rootfs / "etc/systemd/system"
    template = prefix / "lib/systemd/system/sysvisor@.service"
    (units / "multi-user.target.wants").mkdir()
    for name in ("sysvisor@.service", "multi-user.target.wants/sysvisor@box.service"):
        (units / name).symlink_to(template)
    (units / "sysvisor@box.service.d").mkdir()
    (units / "sysvisor@box.service.d/test.conf").write_text("[Service]\nKillSignal=SIGTERM\n")
    machine = boot(runtime, bundle, "--restart", "always")
    first = machine.pid
    unit = "sysvisor@box.service"
    machine.wait_for(f"systemctl is-active {unit}", "the service")
    assert "/bin/sh -c" in machine.sh(f"systemctl --no-pager status {unit}")
    machine.sh("systemctl reboot", check=False)
    wait_until(lambda: _runs_anew(machine, first), 120, "the machine, again")
    machine.wait_booted()
    machine.wait_for(f"systemctl is-active {unit}", "the service, again")
    pid = machine.sh(f"systemctl show --value --property=MainPID {unit}")
    assert machine.sh(f"cat /proc/{pid}/comm") == "sh"


def _runs_anew(machine: Machine, first: int) -> bool:
    state = machine.runtime.state(machine.id)
    return bool(state["status"] == "running" and state["pid"] != first)

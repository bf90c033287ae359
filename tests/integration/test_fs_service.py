"""sysvisor-fs as a service of systemd: sysvisor-fs.service of contrib/systemd, and a container that reads through it.

Elsewhere than on a machine booted with systemd `tests/kernel/test_uml.py` runs this file in a guest.
"""

import os
import pathlib
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.support import leaks
from tests.support.booted import BOOTED, PATIENCE, UNITS, WHY_NOT, show, systemctl, wait_state
from tests.support.booted import status as unit_status
from tests.support.bundle import Bundle
from tests.support.fs_own import PROGRAM, OwnDaemon
from tests.support.runtime import SOURCE, Runtime, wait_until

pytestmark = pytest.mark.skipif(not BOOTED, reason=WHY_NOT)

NewBundle = Callable[..., Bundle]
SETTINGS = "[Service]\nWatchdogSec=4s\n"


@pytest.fixture
def daemon(workplace: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnDaemon]:
    """A place for a daemon, which launches find; ended with all that it has set up."""
    daemon = OwnDaemon(workplace)
    for name, value in daemon.environment().items():
        monkeypatch.setenv(name, value)
    yield daemon
    daemon.stop()


@pytest.fixture
def unit(daemon: OwnDaemon, workplace: pathlib.Path) -> Iterator[str]:
    """The service of that daemon, loaded."""
    name = f"fs-{workplace.name}.service"
    command = f"{PROGRAM} --run-dir={daemon.run_dir} --mountpoint={daemon.mountpoint} --tree=tests.support.fs_served"
    text = (SOURCE / "contrib/systemd/sysvisor-fs.service").read_text()
    text = text.replace("ExecStart=/usr/local/sbin/sysvisor-fs", f"ExecStart={command}")
    text = text.replace("/usr/local/sbin/sysvisor-fs", str(PROGRAM))
    (UNITS / name).write_text(text)
    (UNITS / f"{name}.d").mkdir()
    (UNITS / f"{name}.d/test.conf").write_text(SETTINGS)
    systemctl("daemon-reload")
    yield name
    systemctl("stop", name, check=False)
    systemctl("reset-failed", name, check=False)
    (UNITS / f"{name}.d/test.conf").unlink()
    (UNITS / f"{name}.d").rmdir()
    (UNITS / name).unlink()
    systemctl("daemon-reload")


@pytest.fixture
def fs_runtime(workplace: pathlib.Path, unit: str, daemon: OwnDaemon) -> Iterator[Runtime]:
    """The runtime, whose containers are gone before the service is."""
    runtime = Runtime(workplace)
    yield runtime
    runtime.clean()
    systemctl("stop", unit, check=False)
    daemon.stop()
    wait_until(lambda: leaks.find(runtime) == [], what="an end of everything")


def test_a_container_misses_nothing(fs_runtime: Runtime, daemon: OwnDaemon, unit: str, new_bundle: NewBundle) -> None:
    """Restarted, killed, hanging, stopped and started again: the service is one daemon, and the files are served."""
    systemctl("start", unit)
    assert show(unit, "StatusText", "ActiveState") == ["serving", "active"]
    name = fs_runtime.id()
    flags = ("--no-supervisor", "--detach", "--uid-shift", "chown")
    fs_runtime("run", *flags, "--bundle", new_bundle("/bin/sleep", "1000").path, name)

    def reads() -> str:
        return fs_runtime("exec", name, "/bin/cat", "/proc/uptime", timeout=PATIENCE).stdout.split(maxsplit=2)[1]

    def serves() -> int:
        """The main process, once it is the daemon."""

        def does() -> bool:
            return show(unit, "ActiveState", "StatusText", "MainPID") == [
                "active", "serving", (daemon.run_dir / "lock").read_text().strip()
            ]  # fmt: skip

        try:
            wait_until(does, PATIENCE, "a daemon that is the service's main process")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{unit_status(unit)}") from None
        assert reads() == name
        return int(show(unit, "MainPID")[0])

    first = serves()
    systemctl("restart", unit)
    second = serves()
    os.kill(second, signal.SIGKILL)
    wait_until(lambda: show(unit, "MainPID") not in (["0"], [str(second)]), PATIENCE, "a restart")
    third = serves()
    os.kill(third, signal.SIGSTOP)
    wait_until(lambda: show(unit, "MainPID") not in (["0"], [str(third)]), PATIENCE, "the watchdog")
    assert serves() not in (first, second, third)
    systemctl("stop", unit)
    wait_state(unit, "inactive")
    assert fs_runtime.state(name)["status"] == "running"
    systemctl("start", unit)
    serves()

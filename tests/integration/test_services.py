"""The units of contrib/systemd on a machine whose pid 1 is systemd: containers as services.

Elsewhere `tests/kernel/test_uml.py` runs this file in a guest. Programs and paths in the units are the test's own.
"""

import os
import pathlib
import shutil
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.support import leaks
from tests.support.booted import (
    BOOTED,
    PATIENCE,
    UNITS,
    WHY_NOT,
    show,
    status,
    systemctl,
    unit_cgroup,
    wait_journal,
    wait_state,
)
from tests.support.bundle import Bundle
from tests.support.notified import compile_say
from tests.support.runtime import SOURCE, Runtime, wait_until

pytestmark = pytest.mark.skipif(not BOOTED, reason=WHY_NOT)


class Services:
    """The templates, pointed at a runtime and a directory of bundles."""

    def __init__(
        self, runtime: Runtime, say: pathlib.Path, new_bundle: Callable[..., Bundle], *, supervised: bool
    ) -> None:
        self.runtime = runtime
        self.bundles = runtime.directory / "bundles"
        self.bundles.mkdir()
        self._say = say
        self._new_bundle = new_bundle
        self._made: list[pathlib.Path] = []
        for template in ("sysvisor@.service", "sysvisor-notify@.service"):
            text = (SOURCE / "contrib/systemd" / template).read_text()
            text = text.replace("/usr/local/sbin/sysvisor-runc", " ".join(runtime.argv()))
            # Not every kernel that this runs on can ID-map the file system of the bundles; and most tests are about
            # systemd, not about a supervisor.
            run = " run" if "--no-syscont" in runtime.flags else " run --uid-shift chown"
            if not supervised and "--detach" in text:
                run += " --no-supervisor"
            text = text.replace("/var/lib/sysvisor/bundles", str(self.bundles)).replace(" run --", f"{run} --", 1)
            self.write(template, text)

    def write(self, name: str, text: str) -> None:
        path = UNITS / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        self._made.append(path)

    def bundle(self, *args: str) -> tuple[str, Bundle]:
        """An instance's name, and its bundle that runs this program."""
        name = self.runtime.id()
        bundle = self._new_bundle(*args)
        shutil.copy(self._say, bundle.rootfs / "bin")
        (self.bundles / name).symlink_to(bundle.path)
        return name, bundle

    def unit(self, kind: str, script: str, **settings: str) -> tuple[str, str, Bundle]:
        """A unit that runs a shell script: its name, the container's, and the bundle."""
        name, bundle = self.bundle("/bin/sh", "-c", script)
        unit = f"{kind}@{name}.service"
        if settings:
            lines = "".join(f"{key}={value}\n" for key, value in settings.items())
            self.write(f"{unit}.d/test.conf", f"[Service]\n{lines}")
        return unit, name, bundle

    def start(self, kind: str, script: str, **settings: str) -> tuple[str, str]:
        """Start such a unit."""
        unit, name, _ = self.unit(kind, script, **settings)
        systemctl("daemon-reload")
        systemctl("start", unit)
        return unit, name

    def init(self, name: str) -> int:
        return int(self.runtime.state(name)["pid"])

    def close(self) -> None:
        for entry in self.bundles.iterdir():
            for kind in ("sysvisor", "sysvisor-notify"):
                systemctl("kill", "--signal=KILL", f"{kind}@{entry.name}.service", check=False)
                systemctl("stop", f"{kind}@{entry.name}.socket", f"{kind}@{entry.name}.service", check=False)
                systemctl("reset-failed", f"{kind}@{entry.name}.service", check=False)
        for path in self._made:
            path.unlink(missing_ok=True)
            if path.parent != UNITS:
                path.parent.rmdir()
        systemctl("daemon-reload")


@pytest.fixture(scope="module")
def say(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return compile_say(tmp_path_factory.mktemp("say"))


@pytest.fixture
def services(
    workplace: pathlib.Path, say: pathlib.Path, new_bundle: Callable[..., Bundle], request: pytest.FixtureRequest
) -> Iterator[Services]:
    """The units; afterwards nothing of their containers may be left."""
    kind: str = getattr(request, "param", "plain")
    flags = [] if kind == "syscont" else ["--no-syscont"]
    made = Services(Runtime(workplace, "--no-sysvisor-fs", *flags), say, new_bundle, supervised=kind == "supervised")
    try:
        yield made
    finally:
        made.close()
        made.runtime.clean()
    assert leaks.find(made.runtime) == []


READY = "trap 'echo got USR1' USR1; trap 'exit 0' TERM; say 'READY=1\nSTATUS=all is well'; echo it runs;"
LOOP = "while :; do sleep 0.05; done"


def test_a_container_that_says_when_it_is_ready(services: Services) -> None:
    """Start waits for it; state, main process, cgroup, log, kill and stop are as of any service."""
    unit, name = services.start("sysvisor-notify", f"sleep 1; touch /ready; {READY} {LOOP}")
    main, text, group = show(unit, "MainPID", "StatusText", "ControlGroup")
    assert text == "all is well"
    assert "sysvisor-runc" in pathlib.Path(f"/proc/{main}/cmdline").read_text()
    assert unit_cgroup(services.init(name)).startswith(f"{group}/")
    shown = systemctl("status", unit)
    assert f"Main PID: {main} " in shown and f"CGroup: {group}\n" in shown and f"{services.init(name)} /bin/sh" in shown
    wait_journal(unit, "it runs")
    systemctl("kill", "--kill-who=main", "--signal=USR1", unit)
    wait_journal(unit, "got USR1")
    systemctl("stop", unit)
    assert show(unit, "ActiveState", "Result", "ExecMainStatus") == ["inactive", "success", "0"]
    assert name not in services.runtime.ids()


def test_a_container_in_the_background(services: Services) -> None:
    """Its init is the unit's main process, in the unit's cgroup; what it prints is in the journal, signals are its."""
    script = f"trap 'echo got USR1' USR1; trap 'exit 0' TERM; echo it runs; {LOOP}"
    unit, name = services.start("sysvisor", script, KillSignal="SIGTERM")
    main, group = show(unit, "MainPID", "ControlGroup")
    assert int(main) == services.init(name)
    assert unit_cgroup(main).startswith(f"{group}/")
    shown = systemctl("status", unit)
    assert f"Main PID: {main} (sh)" in shown and f"CGroup: {group}\n" in shown and f"{main} /bin/sh" in shown
    wait_journal(unit, "it runs")
    systemctl("kill", "--kill-who=main", "--signal=USR1", unit)
    wait_journal(unit, "got USR1")
    systemctl("stop", unit)
    assert show(unit, "ActiveState", "Result") == ["inactive", "success"]
    assert name not in services.runtime.ids()


@pytest.mark.parametrize("kind", ["sysvisor", "sysvisor-notify"])
def test_a_crash_is_followed_by_a_restart(services: Services, kind: str) -> None:
    """Restart=on-failure starts a container anew that was killed, and one that ends well stays away."""
    unit, name = services.start(kind, f"say READY=1; [ -e /again ] && sleep 2 && exit 0; touch /again; {LOOP}")
    os.kill(services.init(name), 9)
    wait_until(lambda: show(unit, "NRestarts") == ["1"], PATIENCE, "a restart")
    wait_state(unit, "active")
    wait_state(unit, "inactive")
    assert show(unit, "Result") == ["success"]


@pytest.mark.parametrize("services", ["syscont"], indirect=True)
@pytest.mark.parametrize("kind", ["sysvisor", "sysvisor-notify"])
def test_a_reboot_inside_starts_it_anew(services: Services, kind: str) -> None:
    """Machines whose init calls reboot(2) are started again; those that power off stay off."""
    name, bundle = services.bundle("/sbin/init")
    once = "say READY=1; if [ -e /off ]; then sleep 1; poweroff -f; fi; touch /off; reboot -f"
    bundle.process["env"].append(f"SCRIPT={once}")
    (bundle.rootfs / "etc/inittab").write_text('::sysinit:/bin/sh -c "eval \\"$SCRIPT\\""\n')
    if not (bundle.rootfs / "sbin/init").exists():
        (bundle.rootfs / "sbin").mkdir(exist_ok=True)
        (bundle.rootfs / "sbin/init").symlink_to("/bin/busybox")
    for applet in ("reboot", "poweroff"):
        if not (bundle.rootfs / "bin" / applet).exists():
            (bundle.rootfs / "bin" / applet).symlink_to("busybox")
    bundle.save()
    unit = f"{kind}@{name}.service"
    systemctl("start", unit, check=False)  # Type=notify may find it rebooting before it is up
    wait_until(lambda: show(unit, "NRestarts") == ["1"], PATIENCE, "a restart")
    wait_state(unit, "inactive")
    assert show(unit, "Result") == ["success"]


def test_the_watchdog(services: Services) -> None:
    """A container that says no more that it lives is taken down, and started again."""
    script = "say READY=1; for i in 1 2 3 4 5 6 7 8; do say WATCHDOG=1; sleep 0.4; done; touch /silent; exec sleep 1000"
    unit, name, bundle = services.unit("sysvisor-notify", script, WatchdogSec="2s", RestartSec="10ms")
    systemctl("daemon-reload")
    systemctl("start", unit)
    wait_until(lambda: show(unit, "NRestarts") != ["0"], PATIENCE, "a restart")
    assert (bundle.rootfs / "silent").exists()
    wait_journal(unit, "Watchdog timeout")
    systemctl("stop", unit)
    assert name not in services.runtime.ids()


def test_detached_and_ready(services: Services) -> None:
    """Type=notify around `run -d`: it returns when the container is ready, and its init is the main process."""
    name, bundle = services.bundle("/bin/sh", "-c", f"sleep 0.5; touch /ready; {READY} {LOOP}")
    command = " ".join(services.runtime.argv("run", "--no-supervisor", "--detach", "--bundle", bundle.path, name))
    delete = " ".join(services.runtime.argv("delete", "--force", name))
    unit = f"{name}.service"
    # KillMode=mixed would not wait for a main process that was another's child as systemd heard of it.
    lines = ("Type=notify", f"ExecStart={command}", f"ExecStopPost={delete}", "Delegate=yes")
    services.write(unit, "[Service]\n" + "\n".join(lines) + "\n")
    systemctl("daemon-reload")
    systemctl("start", unit)
    assert (bundle.rootfs / "ready").exists()
    main, text, state = show(unit, "MainPID", "StatusText", "ActiveState")
    assert (int(main), text, state) == (services.init(name), "all is well", "active")
    systemctl("stop", unit)
    assert show(unit, "ActiveState", "Result") == ["inactive", "success"], status(unit)


def test_a_socket_starts_its_container(services: Services, workplace: pathlib.Path) -> None:
    """The first connection starts the unit, and the container answers on the socket that systemd made."""
    unit, _, _ = services.unit("sysvisor-notify", "say READY=1; exec say --accept")
    path = workplace / "web.sock"
    services.write(unit.replace(".service", ".socket"), f"[Socket]\nListenStream={path}\nFileDescriptorName=web\n")
    systemctl("daemon-reload")
    systemctl("start", unit.replace(".service", ".socket"))
    assert show(unit, "ActiveState") == ["inactive"]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(path))
        assert connection.recv(100) == b"web of 1 for 1\n"
    wait_state(unit, "inactive")


@pytest.mark.parametrize("services", ["supervised"], indirect=True)
def test_stopping_one_leaves_the_other(services: Services) -> None:
    """The end of a unit is nobody else's, nor that of the supervisor that it happened to start."""
    script = f"trap 'exit 0' TERM; {LOOP}"
    first, _ = services.start("sysvisor", script, KillSignal="SIGTERM")
    supervisor = supervisor_pid(services.runtime)
    assert not unit_cgroup(supervisor).startswith(show(first, "ControlGroup")[0])
    assert unit_cgroup(supervisor).endswith(".scope")
    second, name = services.start("sysvisor", script, KillSignal="SIGTERM")
    pid = services.init(name)
    systemctl("stop", first)
    assert show(second, "ActiveState", "MainPID") == ["active", str(pid)]
    assert services.runtime.state(name)["status"] == "running"
    assert supervisor_pid(services.runtime) == supervisor
    systemctl("stop", second)


def supervisor_pid(runtime: Runtime) -> int:
    """The supervisor of the state root."""
    return int(runtime("supervisor", "--status").json["pid"])

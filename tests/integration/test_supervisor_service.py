"""The supervisor as a service of systemd: sysvisor-runc-supervisor.service and .socket of contrib/systemd.

Elsewhere than on a machine booted with systemd `tests/kernel/test_uml.py` runs this file in a guest. Names, program and
paths in the units are the test's own.
"""

import datetime
import os
import pathlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sysvisor_runc.launch import tell
from tests.support import leaks
from tests.support.booted import BOOTED, PATIENCE, UNITS, WHY_NOT, show, systemctl, wait_journal, wait_state
from tests.support.booted import status as unit_status
from tests.support.bundle import Bundle
from tests.support.runtime import SOURCE, Runtime, supervisors, wait_until
from tests.support.supervised import alive, events, kill, known, status

pytestmark = pytest.mark.skipif(not BOOTED, reason=WHY_NOT)

NewBundle = Callable[..., Bundle]
GUEST = "User Mode Linux" in pathlib.Path("/proc/cpuinfo").read_text()
DAY = 86400


class Service:
    """The units of a runtime's supervisor."""

    def __init__(self, runtime: Runtime, new_bundle: NewBundle) -> None:
        self.runtime = runtime
        self.new_bundle = new_bundle
        self._made: list[pathlib.Path] = []
        # Not the token, by which leaks are found: systemd removes a unit's cgroup when it comes to it.
        self.name = f"supervisor-{runtime.token.removeprefix('svt-')}"
        self.unit, self.socket = f"{self.name}.service", f"{self.name}.socket"
        for unit in (self.unit, self.socket):
            text = (SOURCE / "contrib/systemd" / unit.replace(self.name, "sysvisor-runc-supervisor")).read_text()
            command = f"{runtime.program} --root {runtime.root} supervisor"
            text = text.replace("/usr/local/sbin/sysvisor-runc supervisor", command)
            text = text.replace("/run/sysvisor-runc/", f"{runtime.root}/").replace(
                "sysvisor-runc-supervisor", self.name
            )
            self.write(unit, text)

    def write(self, name: str, text: str) -> None:
        """A unit file, or a drop-in; loaded."""
        path = UNITS / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        self._made.append(path)
        systemctl("daemon-reload")

    def main(self) -> int:
        """The service's main process, once it is up."""
        wait_state(self.unit, "active")
        return int(show(self.unit, "MainPID")[0])

    def restarts(self) -> int:
        return int(show(self.unit, "NRestarts")[0])

    def wait_status(self, text: str) -> None:
        """Wait until systemctl shows what the supervisor says of itself."""
        wait_until(lambda: show(self.unit, "StatusText") == [text], PATIENCE, f"{text!r} of {self.unit}")

    def run(self, *flags: str) -> str:
        """A container that ends by SIGTERM, in the background."""
        name = self.runtime.id()
        bundle = self.new_bundle().sh("trap 'exit 0' TERM; sleep 1000 & wait")
        self.runtime("run", "--detach", *flags, "--bundle", bundle.path, name)
        return name

    def run_terminal(self) -> str:
        """One that repeats what it reads from its terminal."""
        name = self.runtime.id()
        bundle = self.new_bundle().sh("while read word; do echo got $word; done")
        bundle.process["terminal"] = True
        self.runtime("run", "--detach", "--bundle", bundle.save().path, name)
        return name

    def repeats(self, name: str, word: str) -> None:
        """Have the container repeat a word, by `attach` and `logs`."""

        def kept() -> bool:
            return bool(status(self.runtime)["terminals"])

        wait_until(kept, PATIENCE, "a terminal in the supervisor's hands")
        with tell.Dialogue(str(self.runtime.root)) as dialogue:
            dialogue.ask({"op": "attach", "id": name})
            os.write(dialogue.fds[0], f"{word}\n".encode())
            os.close(dialogue.fds[0])
        said = f"got {word}"
        wait_until(lambda: said in self.runtime("logs", name).stdout, PATIENCE, said)

    def ended(self, name: str, code: int) -> None:
        """See that the end of a container is known; before Linux 6.15 its parent may take the code away first."""
        assert self.runtime("wait", name).stdout in (f"{code}\n", "255\n")

    def close(self) -> None:
        systemctl("kill", "--kill-who=main", "--signal=CONT", self.unit, check=False)
        systemctl("stop", self.socket, self.unit, check=False)
        systemctl("reset-failed", self.unit, self.socket, check=False)
        for path in self._made:
            path.unlink(missing_ok=True)
            if path.parent != UNITS:
                path.parent.rmdir()
        systemctl("daemon-reload")


@pytest.fixture
def service(workplace: pathlib.Path, new_bundle: NewBundle) -> Iterator[Service]:
    """The units, not yet started; afterwards nothing of containers and supervisor may be left."""
    made = Service(Runtime(workplace, "--no-sysvisor-fs", "--no-syscont"), new_bundle)
    try:
        yield made
    finally:
        made.close()
        made.runtime.clean()
    assert leaks.find(made.runtime) == []


def test_the_first_container_starts_it(service: Service) -> None:
    """`run -d` hands over to the service and starts no supervisor; the end of its own unit is not the supervisor's."""
    systemctl("start", service.socket)
    assert show(service.unit, "ActiveState") == ["inactive"]
    first = service.run()
    main = service.main()
    assert supervisors(str(service.runtime.root)) == [main]
    service.wait_status("looks after 1 container")
    other, second = f"{service.name}-other.service", service.runtime.id()
    bundle = service.new_bundle().sh("trap 'exit 7' TERM; sleep 1000 & wait")
    command = " ".join(service.runtime.argv("run", "--detach", "--bundle", bundle.path, second))
    lines = ("Type=oneshot", "RemainAfterExit=yes", "Delegate=yes", f"ExecStart={command}")
    service.write(other, "[Service]\n" + "\n".join(lines) + "\n")
    systemctl("start", other)
    service.wait_status("looks after 2 containers")
    systemctl("stop", other)
    service.ended(second, 7)
    assert service.main() == main
    assert service.runtime.state(first)["status"] == "running"
    assert supervisors(str(service.runtime.root)) == [main]


def test_killed_it_finds_everything_again(service: Service) -> None:
    """After SIGKILL of the supervisor and of its helper: the same containers, and terminals from systemd's store."""
    systemctl("start", service.unit)
    plain, terminal = service.run(), service.run_terminal()
    service.repeats(terminal, "before")
    pids = [service.runtime.state(name)["pid"] for name in (plain, terminal)]
    wait_until(lambda: show(service.unit, "NFileDescriptorStore") != ["0"], PATIENCE, "a stored terminal")
    main, helper = service.main(), status(service.runtime)["launcher"]
    os.kill(main, signal.SIGSTOP)  # or it would start another helper
    kill(helper)
    kill(main)
    wait_until(lambda: service.restarts() == 1, PATIENCE, "a restart")
    assert service.main() != main
    assert [service.runtime.state(name)["pid"] for name in (plain, terminal)] == pids
    service.wait_status("looks after 2 containers")
    service.repeats(terminal, "after")
    service.runtime("kill", terminal, "KILL")
    service.ended(terminal, 137)
    wait_until(lambda: show(service.unit, "NFileDescriptorStore") == ["0"], PATIENCE, "an empty store")


def test_one_that_hangs_is_replaced(service: Service) -> None:
    """A stopped supervisor holds no command up, and its successor knows what came and went meanwhile."""
    service.write(f"{service.unit}.d/test.conf", "[Service]\nWatchdogSec=5s\nRestartSec=10ms\n")
    systemctl("start", service.unit)
    first = service.run()
    main = service.main()
    os.kill(main, signal.SIGSTOP)
    second = service.run()
    service.runtime("kill", first, "KILL")
    wait_until(lambda: not alive(main), PATIENCE, "the watchdog")
    wait_until(lambda: service.restarts() > 0, PATIENCE, "a restart")
    wait_journal(service.unit, "Watchdog timeout")
    service.ended(first, 137)
    service.wait_status("looks after 1 container")
    assert service.runtime.state(second)["status"] == "running"


def test_stopped_it_leaves_everything(service: Service) -> None:
    """Containers run on without it, nothing of ours calls it back, and the socket is there for who wants it."""
    systemctl("start", service.unit)
    plain, terminal = service.run(), service.run_terminal()
    service.repeats(terminal, "before")
    systemctl("restart", service.unit)
    service.repeats(terminal, "again")
    systemctl("stop", service.unit)
    time.sleep(2.5)  # as long as its helper might take to look for it twice
    assert show(service.unit, "ActiveState", "Result") == ["inactive", "success"], unit_status(service.unit)
    for name in (plain, terminal):
        assert service.runtime.state(name)["status"] == "running"
    third = service.run()
    assert service.main() == status(service.runtime)["pid"]
    service.wait_status("looks after 3 containers")
    service.repeats(terminal, "after")
    service.runtime("kill", third, "TERM")
    service.ended(third, 0)


def test_it_takes_over(service: Service) -> None:
    """A supervisor that `run -d` has started makes room for the service, with its containers and terminals."""
    plain, terminal = service.run(), service.run_terminal()
    service.repeats(terminal, "before")
    before = status(service.runtime)["pid"]
    systemctl("start", service.unit)
    main = service.main()
    assert status(service.runtime)["pid"] == main != before
    wait_until(lambda: not alive(before), PATIENCE, "the end of the other one")
    service.repeats(terminal, "after")
    service.wait_status("looks after 2 containers")
    service.runtime("kill", plain, "TERM")
    service.ended(plain, 0)
    systemctl("stop", service.socket, service.unit)
    # Without the service and its socket it is as before.
    service.run()
    assert status(service.runtime)["pid"] not in (main, before)
    assert show(service.unit, "ActiveState") == ["inactive"]
    service.repeats(terminal, "at last")


@pytest.mark.skipif(not GUEST, reason="it sets the machine's clock; to force it: tests/kernel/test_uml.py")
def test_the_clock_jumps(service: Service) -> None:
    """Back and forth by days: restarts come when they are due, and events have the order in which they happened."""
    systemctl("start", service.unit)
    name = service.runtime.id()
    bundle = service.new_bundle().sh("read up idle </proc/uptime; echo $up >>/starts; sleep 0.5; exit 3")
    flags = ("--restart", "on-failure:3", "--restart-delay", "500ms")
    true = time.time() - time.monotonic()
    try:
        service.runtime("run", "--detach", *flags, "--bundle", bundle.path, name)
        starts = bundle.rootfs / "starts"

        def began() -> list[float]:
            return [float(line) for line in starts.read_text().splitlines()] if starts.exists() else []

        def wait_starts(count: int) -> None:
            wait_until(lambda: len(began()) >= count, PATIENCE, f"start {count}")

        def told() -> list[dict[str, Any]]:
            """Its events, without the ends of which more was to come."""
            own = [event for event in events(service.runtime) if event["id"] == name]
            return [event for event in own if not event["data"].get("pending")]

        for count, days in enumerate((2, -3, 1), start=1):
            wait_starts(count)
            time.clock_settime(time.CLOCK_REALTIME, true + time.monotonic() + days * DAY)
        wait_starts(4)
        wait_until(lambda: [event["type"] for event in told()].count("exit") == 4, PATIENCE, "the end of it")
    finally:
        time.clock_settime(time.CLOCK_REALTIME, true + time.monotonic())
    assert known(service.runtime, name)["exitCode"] == 3
    for delay, early, late in zip((0.5, 1, 2), began(), began()[1:], strict=False):
        assert late - early >= delay + 0.4
    assert [event["type"] for event in told()] == ["start", *["exit", "restart"] * 3, "exit"]
    assert [event["seq"] for event in told()] == sorted(event["seq"] for event in told())
    moments = [datetime.datetime.fromisoformat(event["time"]) for event in told()]
    assert moments != sorted(moments), "the clock was set"

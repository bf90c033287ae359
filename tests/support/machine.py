"""A whole Debian as a system container: unpacked once for a module, booted as often as a test likes."""

import contextlib
import pathlib
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import debian, leaks
from tests.support.bundle import Bundle, default_config
from tests.support.runtime import Result, Running, Runtime, wait_until

BOOT_LIMIT = 60


class Machine:
    """One boot of a bundle.

    Attributes: `id`; `running`, the `run` in the foreground that it belongs to (None: detached).
    """

    def __init__(self, runtime: Runtime, bundle: Bundle, running: Running | None, container: str) -> None:
        self.runtime = runtime
        self.bundle = bundle
        self.running = running
        self.id = container

    @property
    def pid(self) -> int:
        """The host's pid of systemd."""
        return int(self.runtime.state(self.id)["pid"])

    def exec(self, *args: str, check: bool = True, timeout: float = 60, flags: tuple[str, ...] = ()) -> Result:
        """Run a program inside."""
        return self.runtime("exec", *flags, self.id, *args, check=check, timeout=timeout)

    def sh(self, script: str, check: bool = True, timeout: float = 60) -> str:
        """What a shell script prints inside, on standard output, stripped."""
        return self.exec("/bin/bash", "-c", script, check=check, timeout=timeout).stdout.strip()

    def wait_booted(self) -> str:
        """What systemd calls its state once the boot is over."""
        deadline = time.monotonic() + BOOT_LIMIT
        while True:
            said = self.exec("systemctl", "is-system-running", check=False).stdout.strip()
            if said in ("running", "degraded", "maintenance"):
                return said
            assert time.monotonic() < deadline, f"still {said!r} after {BOOT_LIMIT} s"
            time.sleep(0.05)

    def wait_for(self, condition: str, what: str) -> None:
        """Wait until a shell condition holds inside."""
        wait_until(lambda: self.exec("/bin/sh", "-c", condition, check=False).returncode == 0, 30, what)

    def processes(self) -> list[int]:
        """The host's pids of all processes inside, nested containers included."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and f"/{self.id}" in (entry / "cgroup").read_text():
                    found.append(int(entry.name))
        assert found
        return found

    def foreign_ids(self) -> list[str]:
        """Processes inside that have an id of the host outside the container's own range: none is right."""
        first, size = self.first_id()
        found = []
        for pid in self.processes():
            with contextlib.suppress(OSError):
                lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
                for line in lines:
                    kind, _, ids = line.partition(":")
                    if kind in ("Uid", "Gid") and not all(first <= int(i) < first + size for i in ids.split()):
                        found.append(f"{pid} {lines[0]} {line}")
        return found

    def first_id(self) -> tuple[int, int]:
        """(first host id, how many) of the container."""
        inside, outside, size = pathlib.Path(f"/proc/{self.pid}/uid_map").read_text().split()
        assert inside == "0"
        return int(outside), int(size)


class Debian:
    """An unpacked variant and a runtime to boot it with, both in `directory`."""

    def __init__(self, variant: str, directory: pathlib.Path) -> None:
        for path in (directory, *directory.parents[:2]):
            path.chmod(0o755)  # a container's mapped root must be able to walk through
        self.directory = directory
        self.runtime = Runtime(directory, "--no-sysvisor-fs")
        self.rootfs = debian.unpack(variant, directory / "bundle/rootfs")

    def served(self, wanted: bool) -> None:
        """From now on start with sysvisor-fs, the session's, or without."""
        self.runtime.flags = () if wanted else ("--no-sysvisor-fs",)

    def bundle(self, *args: str, **process: Any) -> Bundle:
        """The bundle, running systemd unless told otherwise; each call starts from a fresh configuration."""
        bundle = Bundle(self.directory / "bundle", default_config())
        bundle.config["root"]["readonly"] = False
        bundle.process["cwd"] = "/"
        bundle.process.update(process)
        return bundle.run(*(args or ("/sbin/init",)))

    def start(self, bundle: Bundle, *flags: str, detach: bool = True) -> Machine:
        """Run the bundle, detached or as a foreground command in the background."""
        name = self.runtime.id()
        if detach:
            self.runtime("run", "--detach", *flags, "--bundle", bundle.path, name)
            return Machine(self.runtime, bundle, None, name)
        running = self.runtime.start_background("run", *flags, "--bundle", bundle.path, name)
        wait_until(lambda: name in self.runtime.ids() or running.process.poll() is not None, what="the container")
        return Machine(self.runtime, bundle, running, name)

    @contextlib.contextmanager
    def boot(self, *flags: str, detach: bool = True, **process: Any) -> Iterator[Machine]:
        """A machine that has booted; it is switched off the hard way at the end."""
        machine = self.start(self.bundle(**process), *flags, detach=detach)
        try:
            machine.wait_booted()
            yield machine
        finally:
            self.runtime("delete", "--force", machine.id)
            if machine.running is not None:
                machine.running.wait()


@contextlib.contextmanager
def unpacked(variant: str, factory: pytest.TempPathFactory) -> Iterator[Debian]:
    """A variant for a module; in the end nothing of its containers may be left."""
    system = Debian(variant, factory.mktemp(variant))
    try:
        yield system
        system.runtime.clean()
        assert leaks.find(system.runtime) == []
    finally:
        system.runtime.clean()
        shutil.rmtree(system.directory, ignore_errors=True)

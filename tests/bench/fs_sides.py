"""The two that are compared: a container served by sysvisor-fs, another by Debian's lxcfs, and readers in them."""

import contextlib
import math
import pathlib
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from tests.support.bundle import Bundle, make_bundle
from tests.support.runtime import Runtime

PATHS = ("/proc/uptime", "/proc/meminfo", "/proc/stat", "/proc/cpuinfo")
SYSCTL = "/proc/sys/kernel/panic"
MEMORY, QUOTA, PERIOD = 256 << 20, 150_000, 100_000
_PATIENCE = 120.0


class Side:
    """One server's container."""

    def __init__(self, name: str, runtime: Runtime, bundle: Bundle) -> None:
        self.name = name
        self.runtime = runtime
        self.id = runtime.id()
        runtime("run", "--detach", "--bundle", bundle.path, self.id, timeout=_PATIENCE)

    def pid(self) -> int:
        """Its init."""
        return int(self.runtime.state(self.id)["pid"])

    def inside(self, *argv: str) -> str:
        """What a program in it prints."""
        return self.runtime("exec", self.id, *argv, timeout=_PATIENCE).stdout

    def serves(self, path: str) -> bool:
        """lxcfs has no sysctls."""
        return self.name != "lxcfs" or path != SYSCTL

    def end(self) -> None:
        """Remove it."""
        self.runtime("delete", "--force", self.id, check=False, timeout=_PATIENCE)


class Reading:
    """Readers in a container, ready to begin."""

    def __init__(self, side: Side, path: str, readers: int, ms: int, gap_us: int = 0) -> None:
        argv = side.runtime.argv("exec", side.id, "/bin/reader", path, str(readers), str(ms), str(gap_us))
        self._what = f"reading {path} served by {side.name}"
        self._ms = ms
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if (
            not select.select([self._process.stdout], [], [], _PATIENCE)[0]
            or self._process.stdout.readline() != "ready\n"
        ):
            self.kill()
            raise RuntimeError(f"{self._what}: it does not begin")

    def go(self) -> None:
        """Begin."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def taken(self) -> list[int]:
        """Nanoseconds of each reading, unsorted."""
        try:
            said, _ = self._process.communicate(timeout=self._ms / 1e3 + _PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(f"{self._what}: no end") from None
        if self._process.returncode:
            raise RuntimeError(f"{self._what}: exit code {self._process.returncode}")
        return [int(word) for word in said.split()]

    def kill(self) -> None:
        """End it, and all that it has begun with it: `exec` hands the signal on."""
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=5)
        self._process.kill()


def at_once(readings: list[Reading]) -> list[list[int]]:
    """All begin together; the nanoseconds of each."""
    for reading in readings:
        reading.go()
    return [reading.taken() for reading in readings]


def cpus(online: int) -> int:
    """How many CPUs the limits leave of a machine's."""
    return min(online, math.ceil(QUOTA / PERIOD))


def bundle(path: pathlib.Path, template: pathlib.Path, mounts: tuple[dict[str, Any], ...] = ()) -> Bundle:
    """256 MiB, one and a half CPUs, and a process that stays."""
    made = make_bundle(path, template, ("/bin/sleep", "100000"))
    made.linux["resources"] = {"memory": {"limit": MEMORY}, "cpu": {"quota": QUOTA, "period": PERIOD}}
    made.config["mounts"] += mounts
    return made.save()


def bound(place: pathlib.Path) -> tuple[dict[str, Any], ...]:
    """The mounts that put lxcfs's files in a container."""
    return tuple(
        {"type": "bind", "source": f"{place}{path}", "destination": path, "options": ["rbind", "rprivate"]}
        for path in PATHS
    )


@contextlib.contextmanager
def lxcfs(directory: pathlib.Path) -> Iterator[tuple[pathlib.Path, int]]:
    """Debian's lxcfs with load averages and CPU views; where it is mounted, and its pid."""
    place = directory / "lxcfs-mount"
    place.mkdir()
    argv = ["lxcfs", "-f", "-l", "--enable-cfs", "-p", str(directory / "lxcfs.pid"), str(place)]
    with open(directory / "lxcfs.log", "wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        try:
            deadline = time.monotonic() + 20
            while not (place / "proc/uptime").exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"lxcfs does not come up: {(directory / 'lxcfs.log').read_text()}")
                time.sleep(0.05)
            yield place, process.pid
        finally:
            subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

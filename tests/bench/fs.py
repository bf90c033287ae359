"""The part of `make bench` about sysvisor-fs: its files against those of Debian's lxcfs, in containers of equal limits.

Three ways of asking, since waking an idle CPU dominates a single read: *interleaved* (a reader on each server at once),
*alone* (2 ms between reads), *8 readers* (throughput). Then gRPC load meanwhile, memory per container, and whether the
numbers are right.
"""

import asyncio
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

from tests.support.bundle import Bundle, make_bundle, make_rootfs
from tests.support.fs_own import OwnDaemon
from tests.support.runtime import Runtime

FILES = ("/proc/uptime", "/proc/meminfo", "/proc/stat", "/proc/cpuinfo")
SYSCTL = "/proc/sys/kernel/panic"
MEMORY = 256 << 20
IDS = [100_000, 65536]
READS, READERS, CONTAINERS = 1000, 8, (1, 100, 1000)
HERE = pathlib.Path(__file__).parent


class Side:
    """One server's container: reads files in it."""

    def __init__(self, name: str, runtime: Runtime, bundle: Bundle) -> None:
        self.name = name
        self.runtime = runtime
        self.id = runtime.id()
        runtime("run", "--detach", "--bundle", bundle.path, self.id)

    def begin(self, path: str, count: int, gap_us: int = 0) -> subprocess.Popen[str]:
        argv = self.runtime.argv("exec", self.id, "/bin/reader", path, str(count), str(gap_us))
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    def read(self, path: str, count: int, gap_us: int = 0) -> list[int]:
        return taken(self.begin(path, count, gap_us))

    def end(self) -> None:
        self.runtime("delete", "--force", self.id)


def taken(process: subprocess.Popen[str]) -> list[int]:
    """Sorted nanoseconds of a reader."""
    said, _ = process.communicate(timeout=300)
    if process.returncode:
        raise RuntimeError(f"reader: exit code {process.returncode}")
    return sorted(map(int, said.split()))


def show(times: list[int]) -> str:
    return f"{times[len(times) // 2] / 1e3:7.1f} {times[len(times) * 99 // 100] / 1e3:8.1f}"


@contextlib.contextmanager
def lxcfs(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """Debian's lxcfs with load averages and CPU views; where it is mounted."""
    place = directory / "lxcfs"
    place.mkdir()
    argv = ["lxcfs", "-f", "-l", "--enable-cfs", "-p", str(directory / "lxcfs.pid"), str(place)]
    with open(directory / "lxcfs.log", "wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        deadline = time.monotonic() + 20
        while not (place / "proc/uptime").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        try:
            yield place
        finally:
            subprocess.run(["umount", "-l", str(place)], check=False)
            process.terminate()


def limited(bundle: Bundle) -> Bundle:
    """256 MiB and one and a half CPUs."""
    bundle.linux["resources"] = {"memory": {"limit": MEMORY}, "cpu": {"quota": 150_000, "period": 100_000}}
    bundle.save()
    return bundle


def compare(sides: list[Side]) -> None:
    """The table of latencies and throughput."""
    print(f"\n{'open+read+close, µs':<23} {'server':<12} {'interleaved':^16} {'alone':^16} {READERS} readers, reads/s")
    print(f"{'':<23} {'':<12} {'p50':>7} {'p99':>8} {'p50':>7} {'p99':>8}")
    for path in (*FILES, SYSCTL):
        able = [side for side in sides if path in FILES or side.name == "sysvisor-fs"]
        interleaved = [taken(process) for process in [side.begin(path, READS) for side in able]]
        for side, times in zip(able, interleaved, strict=True):
            alone = side.read(path, READS // 8, 2000)
            began = time.monotonic()
            for process in [side.begin(path, READS) for _ in range(READERS)]:
                taken(process)
            rate = READS * READERS / (time.monotonic() - began)
            print(f"{path:<23} {side.name:<12} {show(times)} {show(alone)} {rate:12.0f}", flush=True)


class Load:
    """gRPC calls, one after the other, from a thread of this process."""

    def __init__(self, daemon: OwnDaemon) -> None:
        self._target = f"unix:{daemon.run_dir}/sysvisorfs.sock"
        self._end = threading.Event()
        self.calls = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._call()))

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._end.set()
        self._thread.join()

    async def _call(self) -> None:
        from sysvisor_runc.aio.fs import Client

        client = Client(self._target)
        while not self._end.is_set():
            await client.mountpoint()
            self.calls += 1
        await client.close()


def under_load(side: Side, daemon: OwnDaemon) -> None:
    """Whether gRPC calls disturb the readers."""
    calm = side.read(FILES[1], READS)
    with Load(daemon) as load:
        began = time.monotonic()
        busy = side.read(FILES[1], READS)
        rate = load.calls / (time.monotonic() - began)
    print(f"\n{FILES[1]}: p50, p99 {show(calm)} µs; with {rate:.0f} gRPC calls/s {show(busy)} µs")


def memory(daemon: OwnDaemon, pid: int) -> None:
    """What containers cost the daemon: proportional set size of daemon and holder, by number of containers."""
    asyncio.run(_register(daemon, pid))


async def _register(daemon: OwnDaemon, pid: int) -> None:
    from sysvisor_runc.aio.fs import Caller

    caller = Caller(resident=False)
    target = f"unix:{daemon.run_dir}/sysvisorfs.sock"
    names: list[str] = []
    figures = [(len(daemon.served()), _pss(daemon))]
    for wanted in CONTAINERS[1:]:
        while len(names) < wanted:
            name = f"bench-{os.getpid()}-{len(names)}"
            names.append(name)
            for more in ({"call": "prepare"}, {"call": "register", "initPid": pid, "uid": IDS, "gid": IDS}):
                answer = await caller.carry_out({"id": name, "target": target, **more})
                if "error" in answer:
                    raise RuntimeError(str(answer["error"]))
        figures.append((len(daemon.served()), _pss(daemon)))
    for name in names:
        await caller.carry_out({"call": "unregister", "id": name, "target": target})
    await caller.close()
    print("\nmemory of daemon and holder: " + ", ".join(f"{kib / 1024:.1f} MiB with {n}" for n, kib in figures))
    (few, first), (many, last) = figures[0], figures[-1]
    print(f"    {(last - first) / (many - few):.1f} KiB for each further container")


def _pss(daemon: OwnDaemon) -> int:
    """KiB of everything that has the daemon's directory on its command line."""
    total = 0
    for entry in pathlib.Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            if entry.name.isdigit() and str(daemon.run_dir).encode() in command:
                rollup = (entry / "smaps_rollup").read_text()
                total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        except OSError:
            continue
    return total


def right(side: Side) -> None:
    """Whether the numbers are those of the cgroup."""

    def inside(*argv: str) -> str:
        return side.runtime("exec", side.id, *argv).stdout

    total = int(inside("grep", "MemTotal", "/proc/meminfo").split()[1])
    cpus = int(inside("grep", "-c", "^processor", "/proc/cpuinfo"))
    up = float(inside("cat", "/proc/uptime").split()[0])
    wanted = min(2, os.cpu_count() or 1)
    for what, holds in (
        (f"MemTotal {total} kB", total == MEMORY >> 10),
        (f"{cpus} CPUs", cpus == wanted),
        (f"uptime {up:.0f} s", up < 3600),
    ):
        print(f"    {side.name:<12} {what:<22} {'right' if holds else 'WRONG'}")


def main() -> int:
    """Run it all."""
    if os.geteuid() != 0 or not shutil.which("lxcfs") or not shutil.which("gcc"):
        print("bench of sysvisor-fs: left out, it needs root, lxcfs and gcc (make deps)")
        return 0
    directory = pathlib.Path(tempfile.mkdtemp(prefix="sysvisor-bench-fs-"))
    directory.chmod(0o755)
    daemon = OwnDaemon(directory)
    os.environ.update(daemon.environment())
    try:
        template = make_rootfs(directory / "template")
        reader = str(template / "bin/reader")
        subprocess.run(["gcc", "-O2", "-static", "-o", reader, str(HERE / "reader.c")], check=True)
        with lxcfs(directory) as place:
            _measure(directory, template, daemon, place)
    finally:
        daemon.stop()
        shutil.rmtree(directory, ignore_errors=True)
    return 0


def _measure(directory: pathlib.Path, template: pathlib.Path, daemon: OwnDaemon, place: pathlib.Path) -> None:
    ours = limited(make_bundle(directory / "ours", template, ("/bin/sleep", "100000")))
    theirs = limited(make_bundle(directory / "theirs", template, ("/bin/sleep", "100000")))
    theirs.config["mounts"] += [_bind(f"{place}{path}", path) for path in FILES]
    theirs.save()
    runtimes = [Runtime(directory), Runtime(directory, "--no-sysvisor-fs")]
    sides = [Side("sysvisor-fs", runtimes[0], ours), Side("lxcfs", runtimes[1], theirs)]
    try:
        for side in sides:
            right(side)
        compare(sides)
        under_load(sides[0], daemon)
        memory(daemon, sides[0].runtime.state(sides[0].id)["pid"])
    finally:
        for side in sides:
            side.end()


def _bind(source: str, destination: str) -> dict[str, Any]:
    return {"type": "bind", "source": source, "destination": destination, "options": ["rbind", "rprivate"]}


if __name__ == "__main__":
    sys.exit(main())

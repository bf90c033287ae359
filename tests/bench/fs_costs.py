"""What sysvisor-fs costs when nobody reads: memory by number of containers, and CPU time when idle, beside lxcfs."""

import contextlib
import os
import pathlib
import secrets
import select
import subprocess
import time
from collections.abc import Iterator

from sysvisor_fs.origins import cgroups_of
from tests.bench import report
from tests.bench.fs_latency import Load
from tests.bench.fs_sides import PATHS
from tests.support.fs_daemon import FsDaemon

MORE = (99, 900)  # containers besides the first one
SECONDS = 20.0
PER_CONTAINER = 64.0  # KiB, at most
HERE = pathlib.Path(__file__).parent
_CONTROLLERS = ("cpu", "cpuacct", "memory", "freezer", "pids", "blkio", "unified")
_PATIENCE = 600.0


def of_daemon(run_dir: pathlib.Path) -> list[int]:
    """The processes of the daemon of this directory: itself, its holder, its gateway, and what it has made."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str(run_dir).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def memory_kib(pids: list[int]) -> tuple[int, int]:
    """Proportional set size, which counts what is shared once; then without the pages of files.

    Of those it has less whenever another program happens to use the same library.
    """
    whole = own = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            found = {words[0]: int(words[1]) for line in rollup.splitlines()[1:] if len(words := line.split()) > 1}
            whole += found["Pss:"]
            own += found["Pss:"] - found.get("Pss_File:", 0)
    return whole, own


def cpu_ns(pids: list[int]) -> int:
    """CPU time of all their threads."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    total += int((task / "schedstat").read_text().split()[0])
    return total


def idle(run_dir: pathlib.Path, lxcfs: int) -> tuple[float, float]:
    """Milliseconds of CPU time a second that either takes when nobody reads."""
    before = cpu_ns(of_daemon(run_dir)), cpu_ns([lxcfs])
    time.sleep(SECONDS)
    after = cpu_ns(of_daemon(run_dir)), cpu_ns([lxcfs])
    ours, theirs = ((late - early) / 1e6 / SECONDS for early, late in zip(before, after, strict=True))
    return ours, theirs


@contextlib.contextmanager
def crowd(program: pathlib.Path, count: int, place: pathlib.Path) -> Iterator[list[int]]:
    """Processes like containers' inits, each with cgroups of its own, that have read lxcfs's files; their pids."""
    cgroups = cgroups_of(os.getpid())
    directories = sorted({cgroups[name] for name in _CONTROLLERS if name in cgroups})
    argv = [str(program), str(count), f"svt-crowd-{secrets.token_hex(4)}", *directories]
    environment = {"READ": " ".join(f"{place}{path}" for path in (*PATHS, "/proc/loadavg"))}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            if not select.select([process.stdout], [], [], _PATIENCE)[0]:
                raise RuntimeError("the crowd does not come")
            words = process.stdout.readline().split()
            if len(words) != count:
                raise RuntimeError(f"the crowd is not all there: {words[-1:]}")
            yield [int(word) for word in words]
        finally:
            process.stdin.close()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


class Registered:
    """Containers of the daemon that are nothing but registered, and have had their files read."""

    def __init__(self, directory: pathlib.Path, progress: report.Progress) -> None:
        self._daemon = FsDaemon(directory)
        self._progress = progress
        self._names: list[str] = []

    def add(self, pids: list[int]) -> None:
        """One for each init."""
        for pid in pids:
            name = f"bench-{os.getpid()}-{len(self._names)}"
            self._names.append(name)
            self._daemon.register(name, pid=pid)
            self._look(name)
            self._progress.step(f"{len(self._names)} more containers")

    def _look(self, name: str) -> None:
        fds = self._daemon.trees(name, *(path.strip("/") for path in (*PATHS, "/proc/loadavg")))
        for fd in fds:
            pathlib.Path(f"/proc/self/fd/{fd}").read_bytes()
            os.close(fd)

    def remove(self) -> None:
        """Forget them all."""
        names, self._names = self._names, []
        for name in names:
            with contextlib.suppress(AssertionError):  # its init may have ended
                self._daemon.unregister(name)


STEPS = sum(MORE) + 1 + len(MORE)


def measure(directory: pathlib.Path, place: pathlib.Path, lxcfs: int, progress: report.Progress) -> str:
    """Two tables: memory and idle CPU time, with more and more containers."""
    program, run_dir = directory / "crowd", directory / "run"
    subprocess.run(["gcc", "-O2", "-static", "-o", str(program), str(HERE / "crowd.c")], check=True)
    registered = Registered(directory, progress)
    progress.step("idle, 1 container")
    counts = [1]
    sizes = [(memory_kib(of_daemon(run_dir)), memory_kib([lxcfs]))]
    spent = [idle(run_dir, lxcfs)]
    try:
        with contextlib.ExitStack() as crowds:
            for more in MORE:
                registered.add(crowds.enter_context(crowd(program, more, place)))
                counts.append(counts[-1] + more)
                sizes.append((memory_kib(of_daemon(run_dir)), memory_kib([lxcfs])))
                progress.step(f"idle, {counts[-1]} containers")
                spent.append(idle(run_dir, lxcfs))
    finally:
        registered.remove()
    before = memory_kib(of_daemon(run_dir))[0]
    with Load(run_dir, 1):
        gateway = memory_kib(of_daemon(run_dir))[0] - before
    return f"{_table(counts, sizes, spent)}\nand its gateway, once gRPC is spoken: {gateway / 1024:.1f} MiB"


def _table(
    counts: list[int], sizes: list[tuple[tuple[int, int], tuple[int, int]]], spent: list[tuple[float, float]]
) -> str:
    rows = []
    for at, name in enumerate(("sysvisor-fs, daemon and holder", "lxcfs")):
        each = (sizes[-1][at][1] - sizes[0][at][1]) / (counts[-1] - counts[0])
        aim = "" if at else f" {'✓' if each <= PER_CONTAINER else '✗'}"
        cells = [f"{size[at][0] / 1024:.1f}" for size in sizes] + [f"{each:.1f}{aim}"]
        rows.append([name, "memory, MiB", *cells])
        rows.append([name, "idle, ms of CPU time a second", *(f"{used[at]:.2f}" for used in spent), ""])
    headings = ["containers", "", *map(str, counts), f"KiB for each, ≤ {PER_CONTAINER:.0f}"]
    return report.table(headings, rows)

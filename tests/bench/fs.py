"""The part of `make bench` about sysvisor-fs: its files against those of Debian's lxcfs, in containers of equal limits.

Whether the numbers are right, how fast they are read, whether gRPC load disturbs that, what containers cost in memory
and in CPU time when nobody reads, and whether the thread that answers is better than a loop would be.
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from sysvisor_fs.origins import cgroups_of
from tests.bench import fs_costs, fs_latency, fs_loop, fs_right, report
from tests.bench.fs_sides import Side, bound, bundle, lxcfs
from tests.support.bundle import make_rootfs
from tests.support.fs_daemon import FsDaemon
from tests.support.fs_own import OwnDaemon
from tests.support.runtime import Runtime

PARTS = {"right": 2, "latency": fs_latency.STEPS, "load": fs_latency.LOAD_STEPS, "costs": fs_costs.STEPS,
         "loop": fs_loop.STEPS}  # fmt: skip
HERE = pathlib.Path(__file__).parent


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fs", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", choices=[*PARTS, []], help=f"of {', '.join(PARTS)}; all without any"
    )
    parts = parser.parse_args().parts or list(PARTS)
    if os.geteuid() != 0 or not shutil.which("lxcfs") or not shutil.which("gcc"):
        print("bench of sysvisor-fs: left out, it needs root, lxcfs and gcc (make deps)")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    progress = report.Progress(sum(PARTS[part] for part in parts))
    directory = pathlib.Path(tempfile.mkdtemp(prefix="sysvisor-bench-fs-"))
    directory.chmod(0o755)
    try:
        template = make_rootfs(directory / "template")
        subprocess.run(
            ["gcc", "-O2", "-static", "-o", str(template / "bin/reader"), str(HERE / "reader.c")], check=True
        )
        if set(parts) - {"loop"}:
            _compare(directory, template, parts, progress)
        if "loop" in parts:
            _print(fs_loop.compare(directory / "loops", template, progress), progress)
    except (RuntimeError, AssertionError) as problem:
        progress.end()
        print(f"bench of sysvisor-fs: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        progress.end()
        return 130
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


def _print(table: str, progress: report.Progress) -> None:
    progress.end()
    print(f"\n{table}", flush=True)


def _compare(directory: pathlib.Path, template: pathlib.Path, parts: list[str], progress: report.Progress) -> None:
    daemon = OwnDaemon(directory)
    os.environ.update(daemon.environment())
    with contextlib.ExitStack() as stack:
        stack.callback(daemon.stop)
        place, lxcfs_pid = stack.enter_context(lxcfs(directory))
        sides = []
        for name, flags, mounts in (("sysvisor-fs", (), ()), ("lxcfs", ("--no-sysvisor-fs",), bound(place))):
            made = bundle(directory / name, template, mounts)
            sides.append(Side(name, Runtime(directory, *flags), made))
            stack.callback(sides[-1].end)
        if "right" in parts:
            _print(fs_right.table(sides, progress), progress)
        if "latency" in parts:
            _print(fs_latency.compare(sides, progress), progress)
        if "load" in parts:
            other = stack.enter_context(_another(daemon, directory))
            _print(fs_latency.under_load(sides[0], daemon.run_dir, other, progress), progress)
        if "costs" in parts:
            _print(fs_costs.measure(directory, place, lxcfs_pid, progress), progress)


@contextlib.contextmanager
def _another(daemon: OwnDaemon, directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """The run directory of a daemon that serves nobody, and has the same share of the CPUs."""
    (directory / "another").mkdir()
    other = FsDaemon(directory / "another", "sysvisor_fs.nodes.tree")
    other.start()
    try:
        for cgroup in set(cgroups_of(daemon.status()["pid"]).values()):
            (pathlib.Path(cgroup) / "cgroup.procs").write_text(str(other.pid()))
        yield other.run_dir
    finally:
        other.end()


if __name__ == "__main__":
    sys.exit(main())

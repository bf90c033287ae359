"""Where requests are best answered: the same daemon with its own thread for them, and on asyncio's loop.

`fs_loop.py LOOP OPTION…` is the daemon, for the benchmark alone.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from tests.bench import report
from tests.bench.fs_latency import GAP_US, Load, quantile
from tests.bench.fs_sides import PATHS, Reading, Side, at_once, bundle
from tests.support.fs_own import OwnDaemon
from tests.support.runtime import SOURCE, Runtime

LOOPS = ("thread", "asyncio")
ROUNDS, WINDOW_MS = 4, 500
STEPS = ROUNDS * 4
_PATIENCE = 60.0


def serve(loop: str) -> None:
    """Be the daemon, with its thread until SIGUSR1: setting a container up, the loop itself waits for answers."""
    import asyncio

    from sysvisor_fs import daemon, outside
    from sysvisor_fs.fuse.engine import Engine
    from sysvisor_fs.main import main

    served: list[Engine] = []

    class Known(Engine):
        """The one there is."""

        def start(self) -> None:
            served.append(self)
            super().start()

    def turn(engine: Engine) -> None:
        engine._take(engine._epoll.poll(0))

    def move() -> None:
        for engine in served:
            engine.stop()
            asyncio.get_running_loop().add_reader(engine._epoll.fileno(), turn, engine)

    attend = outside._attend

    async def attend_and_serve(*arguments: Any) -> bool:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, move)
        return await attend(*arguments)

    if loop != "thread":
        vars(daemon)["Engine"], vars(outside)["_attend"] = Known, attend_and_serve
    main()


@contextlib.contextmanager
def _launches_find(daemon: OwnDaemon) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(daemon.environment())
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def served_by(loop: str, directory: pathlib.Path, template: pathlib.Path) -> Iterator[tuple[Side, OwnDaemon]]:
    """A container on a daemon of this kind."""
    directory.mkdir(mode=0o755, parents=True)
    daemon = OwnDaemon(directory)
    daemon.run_dir.mkdir(mode=0o700)
    argv = [sys.executable, "-m", "tests.bench.fs_loop", loop, f"--run-dir={daemon.run_dir}"]
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen([*argv, f"--mountpoint={daemon.mountpoint}"], cwd=SOURCE, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _PATIENCE
        while not (daemon.run_dir / "sysvisorfs.sock").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the daemon on {loop} does not come up: {(directory / 'log').read_text()}")
            time.sleep(0.05)
        with _launches_find(daemon):
            side = Side(loop, Runtime(directory), bundle(directory / "bundle", template))
        if loop != "thread":
            process.send_signal(signal.SIGUSR1)
        try:
            yield side, daemon
        finally:
            with _launches_find(daemon):
                side.end()
    finally:
        daemon.stop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()


def compare(directory: pathlib.Path, template: pathlib.Path, progress: report.Progress) -> str:
    """The table."""
    with contextlib.ExitStack() as stack:
        kinds = [stack.enter_context(served_by(loop, directory / loop, template)) for loop in LOOPS]
        taken: dict[str, list[list[int]]] = {loop: [[], [], [], []] for loop in LOOPS}
        for number in range(ROUNDS):
            turn = kinds if number % 2 else kinds[::-1]
            for at, (what, readers, gap) in enumerate((("busy", 1, 0), ("alone", 1, GAP_US), ("8 readers", 8, 0))):
                progress.step(f"thread or loop: {what}")
                for side, _ in turn:
                    taken[side.name][at] += at_once([Reading(side, PATHS[0], readers, WINDOW_MS, gap)])[0]
            progress.step("thread or loop: under gRPC load")
            for side, daemon in turn:
                reading = Reading(side, PATHS[0], 1, WINDOW_MS)
                with Load(daemon.run_dir, 0):
                    taken[side.name][3] += at_once([reading])[0]
    rows = []
    for loop, (busy, alone, many, loaded) in taken.items():
        times = [f"{quantile(one, cut):.0f}" for one in (busy, alone, loaded) for cut in (50, 99)]
        rows.append([f"{PATHS[0]}, answered on", loop, *times, f"{len(many) * 1000 / (ROUNDS * WINDOW_MS):.0f}"])
    headings = ["open + read + close, µs", "", "one reader p50", "p99", "alone p50", "p99", "gRPC load p50", "p99"]
    return report.table([*headings, "8 readers/s"], rows)


if __name__ == "__main__":
    kind = sys.argv.pop(1)
    sys.argv[0] = str(SOURCE / "bin/sysvisor-fs")
    serve(kind)

"""The part of `make bench` about what sysvisor-fs costs a launch: `run true` of a system container, with and without.

With it twice: where a supervisor is resident, whose warm channel makes the calls, and *cold*, where the command asks
the daemon itself. The daemon runs in either case.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

from tests.bench import phases, report
from tests.bench.spawner import Spawner
from tests.bench.subjects import Subject, installed
from tests.support.bundle import make_bundle, make_rootfs
from tests.support.fs_own import OwnDaemon
from tests.support.runtime import stop_supervisor

WITHOUT, WARM, COLD = "without", "with, supervisor resident", "with, cold"
TARGET = 2.0  # times what it takes without
WARM_UP = 2


class Cost:
    """The measurement, in a directory of its own."""

    def __init__(self, directory: pathlib.Path, runs: int) -> None:
        self.directory = directory
        self.runs = runs
        self.spawner = Spawner()
        program = installed(directory / "installed")
        template = make_rootfs(directory / "template")
        self.true = str(make_bundle(directory / "true", template).path)
        stays = make_bundle(directory / "stays", template, ("/bin/sleep", "100000"))
        self.subjects = {
            title: Subject(name, [program, *flags], directory, self.spawner)
            for title, name, flags in (
                (WITHOUT, "without", ["--no-sysvisor-fs"]),
                (WARM, "warm", []),
                (COLD, "cold", []),
            )
        }
        self.stays = f"{self.subjects[WARM].prefix}-stays"
        self.subjects[WARM]("run", "--detach", "--bundle", str(stays.path), self.stays)

    def measure(self) -> dict[str, list[float]]:
        """Milliseconds of `run true`, each in turn; the first rounds are not counted."""
        samples: dict[str, list[float]] = {title: [] for title in self.subjects}
        order = list(self.subjects.items())
        for number in range(-WARM_UP, self.runs):
            for title, subject in order:
                took = subject("run", "--bundle", self.true, f"{subject.prefix}-{number + WARM_UP}").ms
                if number >= 0:
                    samples[title].append(took)
            order.append(order.pop(0))
            time.sleep(0.02)
        return samples

    def steps(self) -> str:
        """Where the time goes, with sysvisor-fs."""
        return "\n\n".join(
            phases.table({"command": parts["command"]}, f"run true, {title}")
            for title in (WARM, COLD)
            if (parts := phases.breakdown(self.subjects[title], self.true, max(5, self.runs // 2)))
        )

    def finish(self) -> None:
        """Remove the container and the supervisor."""
        self.subjects[WARM]("delete", "--force", self.stays, allow_failure=True)
        stop_supervisor(str(self.subjects[WARM].root))
        self.spawner.close()


def table(samples: dict[str, list[float]]) -> str:
    """Medians, and how they relate to doing without."""
    base = statistics.median(samples[WITHOUT])
    rows = []
    for title, values in samples.items():
        ratio = statistics.median(values) / base
        met = "" if title == WITHOUT else f"≤ {TARGET:.2f} × {'✓' if ratio <= TARGET else '✗'}"
        median, spread = statistics.median(values), statistics.quantiles(values, n=10)
        rows.append([title, "", f"{median:.1f}", f"{spread[0]:.1f}", f"{spread[-1]:.1f}", f"{ratio:.2f}", met])
    return report.table(["run true, system container: sysvisor-fs", "", "ms", "p10", "p90", "ratio", "target"], rows)


def main() -> int:
    """Run it all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30, help="samples of each (default 30)")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("bench of sysvisor-fs: left out, it needs root")
        return 0
    directory = pathlib.Path(tempfile.mkdtemp(prefix="sysvisor-bench-run-"))
    directory.chmod(0o755)
    daemon = OwnDaemon(directory)
    os.environ.update(daemon.environment())  # before there is a spawner
    cost = None
    try:
        cost = Cost(directory, options.runs)
        print(f"\n{table(cost.measure())}\n\n{cost.steps()}")
    finally:
        if cost is not None:
            cost.finish()
        daemon.stop()
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

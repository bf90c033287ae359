"""`make bench`: times this runtime, runc and crun on the same bundle, interleaved, in two spacings."""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

from tests.bench import console, phases, report, scenarios, subjects

SPACINGS = {"back to back": 0.0, "100 ms apart": 0.1}
WARM_UP = 2
TIME = "/usr/bin/time"
# What `runc spec` grants. All capabilities would be more than the caller has on some machines.
CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]


class Bench:
    """One run of the benchmark: its options, who takes part, and how far it is."""

    def __init__(
        self, options: argparse.Namespace, taking_part: list[subjects.Subject], directory: pathlib.Path
    ) -> None:
        self.options = options
        self.subjects = taking_part
        self.bundles = scenarios.Bundles(directory, self.config(directory))
        chosen = scenarios.all_of(self.bundles, options.containers)
        self.scenarios = [one for one in chosen if not options.only or options.only in one.name]
        self.spacings = {name: gap for name, gap in SPACINGS.items() if not (gap and options.no_pause)}
        steps = sum(WARM_UP + self._count(gap) for gap in self.spacings.values()) * len(self.scenarios)
        self.progress = report.Progress(steps + (options.containers * len(taking_part) if self._lists() else 0))

    def _lists(self) -> bool:
        return any(isinstance(one, scenarios.List) for one in self.scenarios)

    def _count(self, gap: float) -> int:
        """Samples in a spacing: the paused one gets half."""
        runs: int = self.options.runs
        return max(3, runs // 2) if gap else runs

    @staticmethod
    def config(directory: pathlib.Path) -> dict[str, object]:
        """The config.json that every runtime gets: what `spec` writes, in terms that Debian's runtimes understand."""
        subprocess.run([str(subjects.SOURCE / "bin/sysvisor-runc"), "spec", "--bundle", str(directory)], check=True)
        config: dict[str, Any] = json.loads((directory / "config.json").read_text())
        config["ociVersion"] = "1.0.2"
        config["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES)
        return config

    def measure(self, scenario: scenarios.Scenario) -> tuple[list[report.Row], dict[str, int]]:
        """All spacings of a scenario, then its peak memory."""
        able = [subject for subject in self.subjects if self._prepared(scenario, subject)]
        rows = [self._spaced(scenario, able, spacing, gap) for spacing, gap in self.spacings.items()]
        peaks = {}
        if os.access(TIME, os.X_OK):
            peaks = {subject.name: kib for subject in able if (kib := scenario.peak(subject, TIME)) is not None}
        for subject in able:
            scenario.finish(subject)
        return rows, peaks

    def _prepared(self, scenario: scenarios.Scenario, subject: subjects.Subject) -> bool:
        """Prepare, and take one sample; a runtime that cannot do it is left out with its own words."""
        try:
            for _ in scenario.prepare(subject):
                self.progress.step(f"{scenario.name}: preparing {subject.name}")
            scenario.sample(subject)
        except RuntimeError as error:
            sys.stderr.write(f"\nbench: {scenario.name} without {subject.name}: {error}\n")
            scenario.finish(subject)
            return False
        return True

    def _spaced(
        self, scenario: scenarios.Scenario, able: list[subjects.Subject], spacing: str, gap: float
    ) -> report.Row:
        """Samples of all runtimes in turn, the order turned by one each round; the first rounds are not counted."""
        samples: dict[str, list[float]] = {report.BARE: [], **{subject.name: [] for subject in able}}
        for number in range(-WARM_UP, self._count(gap)):
            self.progress.step(f"{scenario.name}, {spacing}")
            taken = {}
            for subject in turned(able, number):
                time.sleep(gap)
                taken[subject.name] = scenario.sample(subject)
            time.sleep(gap)
            taken[report.BARE] = able[0].spawner.run([subjects.PYTHON, "-SI", "-c", "pass"]).ms if able else 0.0
            if number >= 0:
                for name, ms in taken.items():
                    samples[name].append(ms)
        return report.Row(scenario.name, spacing, samples)

    def run(self) -> None:
        """Measure everything, then print it."""
        rows: list[report.Row] = []
        peaks: dict[str, dict[str, int]] = {}
        for scenario in self.scenarios:
            measured, peak = self.measure(scenario)
            rows += measured
            if peak:
                peaks[scenario.name] = peak
        self.progress.end()
        ours = next((subject for subject in self.subjects if subject.name == "ours"), None)
        parts = phases.breakdown(ours, self.bundles.true, self.options.runs) if ours else {}
        versions = {subject.name: subject.version() for subject in self.subjects}
        names = [subject.name for subject in self.subjects]
        if self.options.json:
            print(report.to_json(rows, peaks, parts, versions))
            return
        about = report.machine()
        print(f"{about['cpus']} CPUs, Linux {about['kernel']}, Python {about['python']};", "; ".join(versions.values()))
        print(f"\n{report.times(rows, names)}\n\n{report.memory(peaks, names)}")
        if parts:
            print(f"\n{phases.table(parts)}")
        if self.options.console_runs and (not self.options.only or self.options.only in "console"):
            able = [subject for subject in self.subjects if subject.name != "crun"]  # it relays no terminal faster
            directory, size = pathlib.Path(self.bundles.true).parent, self.options.console_mib * console.MIB
            print(f"\n{console.measure(able, directory, self.bundles.true, size, self.options.console_runs)}")


def turned(items: list[subjects.Subject], by: int) -> list[subjects.Subject]:
    """The same items, beginning with another one."""
    start = by % len(items) if items else 0
    return items[start:] + items[:start]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench BENCHFLAGS=…", description=__doc__)
    parser.add_argument("--runs", type=int, default=40, help="samples per runtime back to back (default 40)")
    parser.add_argument("--containers", type=int, default=100, help="containers that list is timed with (default 100)")
    parser.add_argument("--console-runs", type=int, default=5, help="samples of the console (default 5; 0: none)")
    parser.add_argument("--console-mib", type=int, default=256, help="how much goes through it (default 256)")
    parser.add_argument("--only", help="only operations whose name contains this")
    parser.add_argument("--no-pause", action="store_true", help="leave out the spacing of 100 ms")
    parser.add_argument("--program", help="measure this program instead of a fresh installation of the tree")
    parser.add_argument("--runtimes", default="ours,runc,crun", help="who takes part (default ours,runc,crun)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("make bench runs real containers: run it as root", file=sys.stderr)
        return 1
    directory = pathlib.Path(tempfile.mkdtemp(prefix="sysvisor-bench-"))
    directory.chmod(0o755)
    taking_part: list[subjects.Subject] = []
    try:
        taking_part = subjects.find(directory, options.program, options.runtimes.split(","))
        Bench(options, taking_part, directory).run()
    finally:
        scenarios.sweep(taking_part)
        for spawner in {subject.spawner for subject in taking_part}:
            spawner.close()
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

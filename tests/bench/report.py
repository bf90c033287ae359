"""Samples to medians, medians to a table or JSON, and a bar that says how far one is."""

import json
import os
import platform
import statistics
import sys
from typing import Any

BARE = "bare interpreter"
# What is aimed at: (scenario, factor of runc's median) or ms above the bare interpreter.
TARGET_RATIO = {"run true": 0.85, "create + start + delete": 1.0, "exec true": 0.9}
TARGET_ABOVE_BARE = {"state": 5.0, "kill": 5.0}


class Row:
    """One line of the table: the samples of each runtime for one scenario in one spacing, in ms."""

    def __init__(self, scenario: str, spacing: str, samples: dict[str, list[float]]) -> None:
        self.scenario = scenario
        self.spacing = spacing
        self.samples = samples

    def median(self, name: str) -> float | None:
        values = self.samples.get(name)
        return statistics.median(values) if values else None

    def ratio(self, other: str) -> float | None:
        ours, theirs = self.median("ours"), self.median(other)
        return ours / theirs if ours is not None and theirs else None

    def target(self) -> str:
        """The aim and whether it was met, such as `≤ 0.85 × runc ✓`; empty without one."""
        if self.scenario in TARGET_RATIO and (ratio := self.ratio("runc")) is not None:
            limit = TARGET_RATIO[self.scenario]
            return f"≤ {limit:.2f} × runc {'✓' if ratio <= limit else '✗'}"
        ours, bare = self.median("ours"), self.median(BARE)
        if self.scenario in TARGET_ABOVE_BARE and ours is not None and bare is not None:
            limit = TARGET_ABOVE_BARE[self.scenario]
            return f"≤ bare + {limit:.0f} {'✓' if ours - bare <= limit else '✗'}"
        return ""

    def as_json(self) -> dict[str, Any]:
        medians = {name: round(statistics.median(values), 3) for name, values in self.samples.items() if values}
        spread = {
            name: [
                round(cut, 3) for cut in (statistics.quantiles(values, n=10)[0], statistics.quantiles(values, n=10)[-1])
            ]
            for name, values in self.samples.items()
            if len(values) > 1
        }
        ratios = {name: round(value, 3) for name in ("runc", "crun") if (value := self.ratio(name)) is not None}
        return {
            "scenario": self.scenario,
            "spacing": self.spacing,
            "median_ms": medians,
            "p10_p90_ms": spread,
            "ratio": ratios,
        }


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {"kernel": platform.release(), "cpus": os.cpu_count(), "python": platform.python_version()}


def number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def table(headings: list[str], rows: list[list[str]]) -> str:
    """Columns lined up: the first two to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [headings, *rows]) for column in range(len(headings))]

    def line(cells: list[str]) -> str:
        aligned = [c.ljust(w) if n < 2 else c.rjust(w) for n, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return "  ".join(aligned).rstrip()

    return "\n".join([line(headings), line(["─" * width for width in widths]), *map(line, rows)])


def times(rows: list[Row], names: list[str]) -> str:
    """The table of medians, ratios and targets."""
    headings = ["median, ms", "spacing", "bare", *names]
    headings += [f"ours/{name}" for name in names if name != "ours"] + ["target"]
    lines = []
    for row in rows:
        cells = [row.scenario, row.spacing, number(row.median(BARE)), *(number(row.median(name)) for name in names)]
        cells += [number(row.ratio(name), 2) for name in names if name != "ours"]
        lines.append([*cells, row.target()])
    return table(headings, lines)


def memory(peaks: dict[str, dict[str, int]], names: list[str]) -> str:
    """The table of peak memory."""
    lines = [
        [scenario, "", *(number(by_name[name] / 1024) if name in by_name else "–" for name in names)]
        for scenario, by_name in peaks.items()
    ]
    return table(["peak memory of the largest process, MiB", "", *names], lines)


def to_json(
    rows: list[Row], peaks: dict[str, dict[str, int]], phases: dict[str, dict[str, float]], versions: dict[str, str]
) -> str:
    """Everything, for a program."""
    document = {
        "machine": machine(),
        "versions": versions,
        "times": [row.as_json() for row in rows],
        "peak_kib": peaks,
        "phases_ms": phases,
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


class Progress:
    """A bar on standard error, on a terminal only; elsewhere one line per scenario."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self._bar = sys.stderr.isatty()
        self._last = ""

    def step(self, what: str) -> None:
        self.done += 1
        if self._bar:
            width = 32
            filled = min(width, self.done * width // max(self.total, 1))
            sys.stderr.write(f"\r\033[K[{'█' * filled}{'·' * (width - filled)}] {self.done}/{self.total} {what}")
            sys.stderr.flush()
        elif what != self._last:
            sys.stderr.write(f"bench: {what}\n")
            self._last = what

    def end(self) -> None:
        if self._bar:
            sys.stderr.write("\r\033[K")

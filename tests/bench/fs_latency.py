"""How fast files are read, beside lxcfs.

*Interleaved*, a reader on each server at once, *alone*, 2 ms between two readings, and throughput: several readers of
one server. All runs are as long as each other, and the servers take turns.
"""

import asyncio
import pathlib
import threading
import time

from tests.bench import report
from tests.bench.fs_sides import PATHS, SYSCTL, Reading, Side, at_once

ROUNDS, WINDOW_MS, GAP_US = 4, 500, 2000
READERS = (1, 8, 32)
CALLS = 200  # gRPC calls a second
# What is aimed at, as factors of lxcfs's figure; of our own for gRPC.
P50, P99, ALONE, THROUGHPUT, LOADED = 0.7, 1.0, 1.3, 1.0, 1.5


def quantile(times: list[int], per_cent: int) -> float:
    """Microseconds that so many of a hundred took at most."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, len(ordered) * per_cent // 100)] / 1e3


class Figures:
    """What was measured of one file on one server."""

    def __init__(self) -> None:
        self.interleaved: list[int] = []
        self.alone: list[int] = []
        self.counts = dict.fromkeys(READERS, 0)

    def rate(self, readers: int) -> float:
        """Readings a second."""
        return self.counts[readers] * 1000 / (WINDOW_MS * ROUNDS)


def measure(sides: list[Side], path: str, progress: report.Progress) -> dict[str, Figures]:
    """One file, on those that serve it."""
    able = [side for side in sides if side.serves(path)]
    found = {side.name: Figures() for side in able}
    for number in range(ROUNDS):
        turn = able if number % 2 else able[::-1]
        progress.step(f"{path}: interleaved")
        readings = [Reading(side, path, 1, WINDOW_MS) for side in turn]
        for side, times in zip(turn, at_once(readings), strict=True):
            found[side.name].interleaved += times
        progress.step(f"{path}: alone")
        for side in turn:
            found[side.name].alone += at_once([Reading(side, path, 1, WINDOW_MS, GAP_US)])[0]
        for readers in READERS:
            progress.step(f"{path}: {readers} readers")
            for side in turn:
                found[side.name].counts[readers] += len(at_once([Reading(side, path, readers, WINDOW_MS)])[0])
    return found


STEPS = len((*PATHS, SYSCTL)) * ROUNDS * (2 + len(READERS))


def rows_of(path: str, found: dict[str, Figures]) -> list[list[str]]:
    """The lines of the table: each server's, then what ours is of lxcfs's, and whether that is what is aimed at."""
    rows = []
    for name, one in found.items():
        times = [f"{quantile(part, cut):.0f}" for part in (one.interleaved, one.alone) for cut in (50, 99)]
        rows.append([path, name, *times, *(f"{one.rate(readers):.0f}" for readers in READERS)])
    if len(found) == 2:
        ours, theirs = found.values()
        ratios = [
            (quantile(mine, cut) / quantile(other, cut), limit, False)
            for mine, other, limits in (
                (ours.interleaved, theirs.interleaved, (P50, P99)), (ours.alone, theirs.alone, (ALONE, None)),
            )
            for cut, limit in zip((50, 99), limits, strict=True)
        ]  # fmt: skip
        ratios += [
            (ours.rate(readers) / max(1, theirs.rate(readers)), THROUGHPUT if readers == 8 else None, True)
            for readers in READERS
        ]
        rows.append(["", "ratio", *(judged(*ratio) for ratio in ratios)])
    return rows


def judged(ratio: float, limit: float | None, more: bool) -> str:
    """A ratio and whether it is within its limit."""
    if limit is None:
        return f"{ratio:.2f}  "
    return f"{ratio:.2f} {'✓' if (ratio >= limit if more else ratio <= limit) else '✗'}"


def compare(sides: list[Side], progress: report.Progress) -> str:
    """The table."""
    rows = []
    for path in (*PATHS, SYSCTL):
        rows += rows_of(path, measure(sides, path, progress))
    headings = ["open + read + close, µs", "server", "interleaved p50", "p99", "alone p50", "p99"]
    headings += [f"{readers} reader{'s' * (readers > 1)}/s" for readers in READERS]
    aims = f"interleaved p50 ≤ {P50}, p99 ≤ {P99}, alone p50 ≤ {ALONE}, 8 readers ≥ {THROUGHPUT}"
    return f"{report.table(headings, rows)}\naimed at, of lxcfs's: {aims}"


class Load:
    """gRPC calls, from a thread of this process: so many a second, or with 0 as many as go."""

    def __init__(self, run_dir: pathlib.Path, rate: int) -> None:
        self._target = f"unix:{run_dir}/sysvisorfs.sock"
        self._gap = 1 / rate if rate else 0.0
        self._end = threading.Event()
        self._begun = threading.Event()
        self.calls = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._call()), daemon=True)

    def __enter__(self) -> "Load":
        self._thread.start()
        if not self._begun.wait(60):
            raise RuntimeError("gRPC does not answer")
        return self

    def __exit__(self, *failure: object) -> None:
        self._end.set()
        self._thread.join(60)

    async def _call(self) -> None:
        from sysvisor_runc.aio.fs import Client

        client = Client(self._target)
        await client.mountpoint()
        self._begun.set()
        due = time.monotonic()
        while not self._end.is_set():
            await client.mountpoint()
            self.calls += 1
            due = max(due + self._gap, time.monotonic() - 0.1)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await client.close()


def under_load(side: Side, run_dir: pathlib.Path, elsewhere: pathlib.Path, progress: report.Progress) -> str:
    """Whether gRPC calls disturb a reader, to its daemon and to another one: those take as much of the CPUs."""
    path = PATHS[1]
    loads = [(None, 0), *((place, rate) for rate in (CALLS, 0) for place in (elsewhere, run_dir))]
    taken: list[list[int]] = [[] for _ in loads]
    calls = [0] * len(loads)
    for _ in range(ROUNDS):
        for at, (place, rate) in enumerate(loads):
            progress.step("under gRPC load")
            reading = Reading(side, path, 1, WINDOW_MS)
            if place is None:
                taken[at] += at_once([reading])[0]
                continue
            with Load(place, rate) as load:
                before = load.calls
                taken[at] += at_once([reading])[0]
                calls[at] += load.calls - before
    calm = quantile(taken[0], 99)
    rows = []
    for (place, rate), times, count in zip(loads, taken, calls, strict=True):
        limit = LOADED if place == run_dir and rate else None
        ratio = "" if place is None else judged(quantile(times, 99) / calm, limit, False)
        what = "no gRPC calls"
        if place is not None:
            what = f"{count * 1000 / (WINDOW_MS * ROUNDS):.0f} gRPC calls/s{', all that go,' if not rate else ''} "
            what += "to its daemon" if place == run_dir else "to another"
        rows.append([f"{path}, {what}", "", f"{quantile(times, 50):.0f}", f"{quantile(times, 99):.0f}", ratio])
    return report.table(["one reader, µs", "", "p50", "p99", f"p99's ratio, ≤ {LOADED}"], rows)


LOAD_STEPS = 5 * ROUNDS

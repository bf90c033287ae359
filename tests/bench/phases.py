"""Where the time of one `run true` goes, by the steps that the launch and its child report (`launch/steps.py`).

A mark says that a step begins, so the time until the next mark of the same process is that step's.
"""

import itertools
import os
import pathlib
import statistics
import time

from tests.bench import report
from tests.bench.subjects import PYTHON, Subject

ENTRY = pathlib.Path(__file__).with_name("phases_entry.py")

Phases = dict[str, float]


def breakdown(subject: Subject, bundle: str, runs: int) -> dict[str, Phases]:
    """Median ms of each step, in order, of the `command` and of its `child`; empty if the runtime reports none."""
    found: dict[str, dict[str, list[float]]] = {"command": {}, "child": {}}
    for number in range(runs):
        file = pathlib.Path(f"{subject.output}-marks")
        file.unlink(missing_ok=True)
        command = [PYTHON, "-SI", str(ENTRY), subject.command[0], str(file)]
        command += [*subject.command[1:], "run", "--bundle", bundle, f"{subject.prefix}-phase{number}"]
        began = time.monotonic_ns()
        pid = os.posix_spawn(PYTHON, command, os.environ)
        os.waitpid(pid, 0)
        ended = time.monotonic_ns()
        for who, steps in _split(file, pid, began, ended).items():
            for name, ms in steps.items():
                found[who].setdefault(name, []).append(ms)
    return {who: {name: statistics.median(values) for name, values in steps.items()} for who, steps in found.items()}


def _split(file: pathlib.Path, command: int, began: int, ended: int) -> dict[str, Phases]:
    """The marks of one run as durations; the child's last step ends when its program runs, which the command hears."""
    marks: dict[str, list[tuple[str, int]]] = {"command": [("interpreter", began)], "child": []}
    for line in file.read_text().splitlines() if file.exists() else ():
        pid, name, stamp = line.split()
        marks["command" if int(pid) == command else "child"].append((name, int(stamp)))
    if not marks["child"]:
        return {}
    last = marks["child"][-1][1]
    heard = next((stamp for _, stamp in marks["command"] if stamp > last), ended)
    marks["command"].append(("", ended))
    marks["child"].append(("", heard))
    return {
        who: {name: (after - stamp) / 1e6 for (name, stamp), (_, after) in itertools.pairwise(steps)}
        for who, steps in marks.items()
    }


def table(parts: dict[str, Phases]) -> str:
    """The steps as one table per process, with a bar each."""
    return "\n\n".join(_table(who, steps) for who, steps in parts.items() if steps)


def _table(who: str, steps: Phases) -> str:
    whole = sum(steps.values())
    lines = [
        [name, "█" * round(40 * ms / whole), f"{ms:.2f}", f"{100 * ms / whole:.0f} %"] for name, ms in steps.items()
    ]
    lines.append(["sum", "", f"{whole:.2f}", ""])
    return report.table([f"run true: steps of the {who}", "", "ms", "share"], lines)

"""Where the time of one `run true` goes, by the steps that the launch and its child report (`launch/steps.py`).

A mark says that a step begins, so the time until the next mark of the same process is that step's. With sysvisor-fs
the time in which the command waits for the answer to a gRPC call is a step of its own, `fs-wait-CALL`.
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
    found: dict[str, Phases] = {}
    for who, passed in marks.items():
        found[who] = {}
        for (step, since), (_, until) in itertools.pairwise(passed):
            found[who][step] = found[who].get(step, 0.0) + (until - since) / 1e6
    return found


def table(parts: dict[str, Phases], what: str = "run true") -> str:
    """The steps as one table per process, with a bar each."""
    return "\n\n".join(_table(what, who, steps) for who, steps in parts.items() if steps)


def _table(what: str, who: str, steps: Phases) -> str:
    whole = sum(steps.values())
    lines = [
        [name, "█" * round(40 * ms / whole), f"{ms:.2f}", f"{100 * ms / whole:.0f} %"] for name, ms in steps.items()
    ]
    lines.append(["sum", "", f"{whole:.2f}", ""])
    return report.table([f"{what}: steps of the {who}", "", "ms", "share"], lines)

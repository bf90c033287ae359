"""`make bench`, third part: what a supervised container costs, beside conmon's and containerd's."""

import argparse
import concurrent.futures
import json
import os
import pathlib
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from sysvisor_runc.launch import tell
from tests.bench import others, report, scenarios, subjects
from tests.bench.others import pss
from tests.bench.spawner import Spawner
from tests.support.runtime import stop_supervisor

DEATHS = 100
IDLE = 10.0
# Commands at a time. A start is half waiting for the kernel.
AT_ONCE = 2 * (os.cpu_count() or 1)
# Row → what is aimed at: at most so much, in the row's unit; of memory, a tenth of conmon's.
TARGETS = {"marginal, KiB per container": 4.0, "death to event, ms p99": 5.0, "idle CPU, %": 0.5}
OF_CONMON = 0.1
# The tenth is aimed at with so many.
MANY = 1000


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def private(pid: int) -> int:
    """What only this process has in memory, in bytes."""
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in text if line.startswith(("Private_Dirty:", "Private_Clean:")))


class Crowd:
    """Many containers of one runtime, started and removed several at a time."""

    def __init__(self, subject: subjects.Subject, bundle: str, deadline: float, progress: report.Progress) -> None:
        self.names: list[str] = []
        self._subject = subject
        self._bundle = bundle
        self._deadline = deadline
        self._progress = progress

    def start(self, count: int) -> float:
        """Start that many, or as many as there is time for; how many a second."""
        first = len(self.names)
        names = [f"{self._subject.prefix}-{number}" for number in range(first, first + count)]
        began = time.monotonic()
        self._each("starting", names, self._start)
        return (len(self.names) - first) / (time.monotonic() - began)

    def _start(self, name: str) -> None:
        if time.monotonic() < self._deadline:
            self._run("run", "--detach", "--bundle", self._bundle, name)
            self.names.append(name)

    def _run(self, *arguments: str) -> None:
        # To a file: what a container inherits stays open as long as it lives.
        with tempfile.TemporaryFile("w+") as said:
            command = [*self._subject.command, *arguments]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=60)
            said.seek(0)
            if done.returncode:
                raise RuntimeError(f"{' '.join(arguments)}: exit {done.returncode}: {said.read()[-300:]}")

    def _each(self, what: str, names: list[str], do: Any) -> None:
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            for future in concurrent.futures.as_completed([pool.submit(do, name) for name in names]):
                try:
                    future.result()
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
                self._progress.step(f"{what} {len(names)} containers")

    def remove(self) -> None:
        """Remove all of them; what goes wrong is told, and holds up no other."""
        names, self.names = self.names, []

        def delete(name: str) -> None:
            try:
                self._run("delete", "--force", name)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                sys.stderr.write(f"\nbench: {error}\n")

        self._each("removing", names, delete)


class Supervision:
    """The measurement, on a state root of its own."""

    def __init__(self, subject: subjects.Subject, crowd: Crowd, count: int) -> None:
        self.subject = subject
        self.crowd = crowd
        self.count = count
        self.found: dict[str, float] = {}

    def measure(self) -> dict[str, float]:
        """All of it, while the crowd grows."""
        self.crowd.start(1)
        pid = self._settled(1)
        base = pss(pid), private(pid)
        few = min(2 * DEATHS, self.count)
        self.crowd.start(few - 1)
        self._settled(few)
        deaths = self._deaths(min(DEATHS, few // 2))
        already = len(self.crowd.names)
        rate = self.crowd.start(max(self.count - (already - len(self.dead)), 0))
        living = len(self.crowd.names) - len(self.dead)
        if self._settled(living) != pid:
            raise RuntimeError("the supervisor has been replaced meanwhile")
        self.found["containers"] = living
        if len(self.crowd.names) > already:
            self.found["starts per second"] = rate
        self.found["base, MiB PSS"] = base[0] / 2**20
        self.found["all, MiB PSS"] = pss(pid) / 2**20
        self.found["marginal, KiB per container"] = (private(pid) - base[1]) / 1024 / max(living - 1, 1)
        self.found["whole, KiB PSS per container"] = pss(pid) / 1024 / living
        self.found |= self._idle(pid)
        return self.found | deaths

    def _status(self) -> dict[str, Any]:
        return tell.ask(str(self.subject.root), {"op": "status"})[0]

    def _settled(self, wanted: int) -> int:
        """The supervisor's pid once it looks after that many."""
        deadline = time.monotonic() + 60
        while (found := self._status())["running"] != wanted:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{found['running']} of {wanted} containers are looked after")
            time.sleep(0.05)
        time.sleep(1)
        return int(found["pid"])

    def _idle(self, pid: int) -> dict[str, float]:
        before = cpu(pid)
        time.sleep(IDLE)
        return {"idle CPU, %": (cpu(pid) - before) / IDLE * 100}

    def _deaths(self, count: int) -> dict[str, float]:
        """Milliseconds from the death of an init, as its pidfd tells it here, to the event in the hands of a reader."""
        self.dead = self.crowd.names[:count]
        delays = []
        with tell.Dialogue(str(self.subject.root)) as dialogue:
            dialogue.ask({"op": "events"})
            for name in self.dead:
                record = json.loads((self.subject.root / name / "state.json").read_text())
                delays.append(_death(dialogue, name, record["initPid"]))
        quantiles = statistics.quantiles(delays, n=100, method="inclusive")
        return {"death to event, ms p50": quantiles[49], "death to event, ms p99": quantiles[98]}


def _death(dialogue: tell.Dialogue, name: str, pid: int) -> float:
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    select.select([pidfd], [], [])
    began = time.monotonic()
    os.close(pidfd)
    for event in dialogue.lines():
        if event["type"] == "exit" and event["id"] == name:
            return (time.monotonic() - began) * 1000
    raise RuntimeError("the supervisor has ended")


def compared(found: dict[str, float], conmon: float | None, shim: float | None) -> dict[str, float]:
    """With what the others take, and from how many containers on they take more."""
    marginal = found["marginal, KiB per container"]
    for name, each in (("conmon", conmon), ("containerd-shim", shim)):
        if each is not None:
            found[f"{name}, KiB PSS per container"] = each
            found[f"break-even with {name}, containers"] = found["base, MiB PSS"] * 1024 / max(each - marginal, 1)
    return found


def target(name: str, found: dict[str, float]) -> str:
    """What is aimed at and whether it was met, such as `≤ 5 ✓`; empty without an aim."""
    limit, what = TARGETS.get(name), ""
    conmon = found.get("conmon, KiB PSS per container")
    if name == "whole, KiB PSS per container" and conmon is not None and found["containers"] >= MANY:
        limit, what = OF_CONMON * conmon, " (conmon / 10)"
    return "" if limit is None else f"≤ {limit:.3g}{what} {'✓' if found[name] <= limit else '✗'}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--supervised", type=int, default=1000, help="containers of one supervisor (default 1000)")
    parser.add_argument("--timeout", type=float, default=600, help="seconds to start them in (default 600)")
    options = parser.parse_args()
    if options.supervised < 2:
        parser.error("--supervised: two at least")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="sysvisor-bench-"))
    directory.chmod(0o755)
    spawner = Spawner()
    command = [subjects.installed(directory / "installed"), "--no-syscont", "--no-sysvisor-fs"]
    subject = subjects.Subject("supervised", command, directory, spawner)
    from tests.bench.__main__ import Bench

    bundle = scenarios.Bundles(directory, Bench.config(directory)).sleep
    progress = report.Progress(2 * (options.supervised + DEATHS))
    crowd = Crowd(subject, bundle, time.monotonic() + options.timeout, progress)
    try:
        each = others.conmon(subject, bundle, directory), others.shim(bundle, directory)
        found = compared(Supervision(subject, crowd, options.supervised).measure(), *each)
    finally:
        crowd.remove()
        progress.end()
        stop_supervisor(str(subject.root))
        spawner.close()
        shutil.rmtree(directory, ignore_errors=True)
    if found["containers"] < options.supervised:
        print(f"only {found['containers']:.0f} of {options.supervised} containers within {options.timeout:.0f} s")
    rows = [[name, target(name, found), f"{value:.2f}"] for name, value in found.items()]
    print(report.table(["supervision", "target", "value"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`make bench`, second part: what a supervised container costs, beside one that conmon looks after."""

import argparse
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
from tests.bench import report, scenarios, subjects
from tests.bench.spawner import Spawner
from tests.support.runtime import stop_supervisor

CONMON = "/usr/bin/conmon"
CONMONS = 20
DEATHS = 100
IDLE = 10.0


def pss(pid: int) -> int:
    """The proportional set size of a process in bytes."""
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} tells no Pss")


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def private(pid: int) -> int:
    """What only this process has in memory, in bytes."""
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in text if line.startswith(("Private_Dirty:", "Private_Clean:")))


class Supervision:
    """The measurement, on a state root of its own."""

    def __init__(self, directory: pathlib.Path, subject: subjects.Subject, bundle: str, count: int) -> None:
        self.directory = directory
        self.subject = subject
        self.bundle = bundle
        self.count = count
        self.names: list[str] = []
        self.found: dict[str, float] = {"containers": count}

    def start(self, name: str) -> None:
        self.subject("run", "--detach", "--bundle", self.bundle, name)
        self.names.append(name)

    def status(self) -> dict[str, Any]:
        return tell.ask(str(self.subject.root), {"op": "status"})[0]

    def measure(self) -> dict[str, float]:
        """All of it; the containers are gone afterwards."""
        self.start(f"{self.subject.prefix}-first")
        pid = self._settled()
        base = pss(pid), private(pid)
        began = time.monotonic()
        for number in range(self.count - 1):
            self.start(f"{self.subject.prefix}-{number}")
        self.found["starts per second"] = (self.count - 1) / (time.monotonic() - began)
        assert self._settled() == pid
        self.found["base, MiB PSS"] = base[0] / 2**20
        self.found["all, MiB PSS"] = pss(pid) / 2**20
        self.found["marginal, KiB per container"] = (private(pid) - base[1]) / 1024 / (self.count - 1)
        self.found["whole, KiB PSS per container"] = pss(pid) / 1024 / self.count
        self.found |= self._idle(pid)
        self.found |= self._deaths()
        return self.found

    def _settled(self) -> int:
        """The supervisor's pid once it has adopted everything."""
        deadline = time.monotonic() + 60
        while self.status()["running"] < len(self.names):
            assert time.monotonic() < deadline, "not all containers were adopted"
            time.sleep(0.05)
        time.sleep(1)
        pid = self.status()["pid"]
        assert isinstance(pid, int)
        return pid

    def _idle(self, pid: int) -> dict[str, float]:
        before = cpu(pid)
        time.sleep(IDLE)
        return {"idle CPU, %": (cpu(pid) - before) / IDLE * 100}

    def _deaths(self) -> dict[str, float]:
        """Milliseconds from the death of an init, as its pidfd tells it here, to the event in the hands of a reader."""
        pids = {}
        for name in self.names[:DEATHS]:
            record = json.loads((self.subject.root / name / "state.json").read_text())
            pids[name] = record["initPid"]
        delays = []
        with tell.Dialogue(str(self.subject.root)) as dialogue:
            dialogue.ask({"op": "events"})
            for name, pid in pids.items():
                pidfd = os.pidfd_open(pid)
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                select.select([pidfd], [], [])
                began = time.monotonic()
                os.close(pidfd)
                for event in dialogue.lines():
                    if event["type"] == "exit" and event["id"] == name:
                        break
                delays.append((time.monotonic() - began) * 1000)
        quantiles = statistics.quantiles(delays, n=100)
        return {"death to event, ms p50": quantiles[49], "death to event, ms p99": quantiles[98]}

    def finish(self) -> None:
        """Remove the containers and the supervisor."""
        for name in self.names:
            self.subject("delete", "--force", name, allow_failure=True)
        stop_supervisor(str(self.subject.root))


def conmon(subject: subjects.Subject, bundle: str, directory: pathlib.Path) -> float | None:
    """KiB PSS of a conmon with a container of the same runtime; None where it is not installed."""
    if not os.access(CONMON, os.X_OK):
        return None
    names = [f"{subject.prefix}-conmon-{number}" for number in range(CONMONS)]
    root = directory / "conmon"
    root.mkdir()
    try:
        for name in names:
            command = [
                CONMON,
                "--api-version",
                "1",
                "-c",
                name,
                "-u",
                name,
                "-b",
                bundle,
                "-l",
                "none",
                "--full-attach",
            ]
            command += ["-p", str(root / f"{name}.pid"), "-P", str(root / f"{name}.conmon"), "--exit-dir", str(root)]
            command += ["-r", subject.command[0], *(f"--runtime-arg={word}" for word in subject.command[1:])]
            null = subprocess.DEVNULL
            subprocess.run(command, check=True, stdin=null, stdout=null, stderr=null)
        time.sleep(1)
        pids = [int((root / f"{name}.conmon").read_text()) for name in names]
        return sum(map(pss, pids)) / 1024 / len(pids)
    except (subprocess.CalledProcessError, OSError, ValueError) as error:
        sys.stderr.write(f"bench: without conmon: {error}\n")
        return None
    finally:
        for name in names:
            subject("delete", "--force", name, allow_failure=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--supervised", type=int, default=1000, help="containers of one supervisor (default 1000)")
    options = parser.parse_args()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="sysvisor-bench-"))
    directory.chmod(0o755)
    spawner = Spawner()
    command = [str(subjects.SOURCE / "bin/sysvisor-runc"), "--no-syscont", "--no-sysvisor-fs"]
    subject = subjects.Subject("supervised", command, directory, spawner)
    from tests.bench.__main__ import Bench

    bundle = scenarios.Bundles(directory, Bench.config(directory)).sleep
    supervision = Supervision(directory, subject, bundle, options.supervised)
    try:
        other = conmon(subject, bundle, directory)
        found = supervision.measure()
    finally:
        supervision.finish()
        spawner.close()
        shutil.rmtree(directory, ignore_errors=True)
    if other is not None:
        found["conmon, KiB PSS per container"] = other
        found["break-even with conmon, containers"] = (
            found["base, MiB PSS"] * 1024 / max(other - found["marginal, KiB per container"], 1)
        )
    print(report.table(["supervision", "", "value"], [[name, "", f"{value:.2f}"] for name, value in found.items()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

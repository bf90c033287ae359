"""What is measured: this runtime as `make install` puts it, and Debian's runc and crun where they are there."""

import os
import pathlib
import shutil
import subprocess
import sys

from tests.bench.spawner import UNIFIED, Spawner, Timing

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"


class Subject:
    """A runtime on a state root of its own.

    Attributes:
        name: as the table calls it.
        command: the program with its global flags.
        prefix: of its container ids, for cgroups are shared between runtimes.
    """

    def __init__(self, name: str, command: list[str], directory: pathlib.Path, spawner: Spawner) -> None:
        self.name = name
        self.root = directory / f"state-{name}"
        self.root.mkdir(mode=0o700)
        self.command = [command[0], "--root", str(self.root), *command[1:]]
        self.prefix = f"bench-{os.getpid()}-{name}"
        self.spawner = spawner
        self.output = str(directory / f"output-{name}")

    def __call__(self, *arguments: str, allow_failure: bool = False) -> Timing:
        """Run a verb. Raises RuntimeError with the runtime's own words if it fails."""
        timing = self.spawner.run([*self.command, *arguments], self.output)
        if timing.code != 0 and not allow_failure:
            said = pathlib.Path(self.output).read_text().strip()
            raise RuntimeError(f"{self.name} {' '.join(arguments)}: exit {timing.code}: {said[-300:]}")
        return timing

    def peak_kib(self, time: str, *arguments: str) -> int:
        """Peak resident memory of the largest process of a command, in KiB, as a small parent measures it.

        A child's peak begins with that of the process it was made from, so GNU time (1 MiB) stands between.
        """
        report = f"{self.output}-peak"
        self.spawner.run([time, "-f", "%M", "-o", report, *self.command, *arguments], self.output)
        return int(pathlib.Path(report).read_text().split()[-1])

    def version(self) -> str:
        """The first line of `--version`."""
        done = subprocess.run([self.command[0], "--version"], check=True, capture_output=True, text=True)
        return done.stdout.splitlines()[0]


def installed(directory: pathlib.Path) -> str:
    """Install the source tree below `directory`; the program's path."""
    program = f"{directory}/sbin/sysvisor-runc"
    subprocess.run(
        [PYTHON, str(SOURCE / "tools/install.py"), "--library", f"{directory}/lib", "--program", program,
         "--daemon", f"{directory}/sbin/sysvisor-fs", "--tags", "seccomp selinux apparmor ambient",
         "sysvisor_runc", "sysvisor_fs"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return program


def find(directory: pathlib.Path, program: str | None, names: list[str]) -> list[Subject]:
    """The runtimes of that name that this machine has and whose cgroup layout they accept."""
    host = Spawner()
    found = []
    if "ours" in names:
        ours = program or installed(directory / "installed")
        found.append(Subject("ours", [ours, "--no-syscont", "--no-sysvisor-fs"], directory, host))
    for name in ("runc", "crun"):
        path = shutil.which(name)
        if name not in names or not path:
            continue
        hybrid = name == "crun" and os.path.ismount(UNIFIED)
        found.append(Subject(name, [path], directory, Spawner(hide_unified=True) if hybrid else host))
    if not found:
        sys.exit("bench: none of the runtimes is here")
    return found

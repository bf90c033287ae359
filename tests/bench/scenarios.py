"""The operations that are timed. Each prepares once per runtime, then gives one sample in ms per call."""

import json
import os
import pathlib
import time
from collections.abc import Iterator

from tests.bench.subjects import Subject
from tools import busybox_rootfs

LONG = "100000"


class Bundles:
    """The two bundles that every runtime gets: one whose process ends at once, one whose process stays."""

    def __init__(self, directory: pathlib.Path, config: dict[str, object]) -> None:
        self.true = self._make(directory / "true", config, ["/bin/true"])
        self.sleep = self._make(directory / "sleep", config, ["/bin/sleep", LONG])

    @staticmethod
    def _make(path: pathlib.Path, config: dict[str, object], args: list[str]) -> str:
        busybox_rootfs.make(path / "rootfs")
        process = config["process"]
        assert isinstance(process, dict)
        process |= {"terminal": False, "args": args}
        (path / "config.json").write_text(json.dumps(config))
        return str(path)


class Scenario:
    """One operation. `prepare` and `finish` are not timed; `sample` gives the time of one go."""

    name = ""
    # Of the paused spacing there are fewer samples, and none where a sample takes several commands with waits anyway.
    target: tuple[str, float] | None = None

    def __init__(self, bundles: Bundles) -> None:
        self.bundles = bundles
        self._numbers = iter(range(1, 1 << 30))

    def new_id(self, subject: Subject) -> str:
        return f"{subject.prefix}-{next(self._numbers)}"

    def prepare(self, subject: Subject) -> Iterator[None]:
        """Make what `sample` needs, a step per iteration (for the progress bar)."""
        yield from ()

    def sample(self, subject: Subject) -> float:
        raise NotImplementedError

    def peak(self, subject: Subject, time: str) -> int | None:
        """Peak memory of the operation in KiB, where one command is all of it."""
        return None

    def finish(self, subject: Subject) -> None:
        """Remove what `prepare` made."""


class RunTrue(Scenario):
    name = "run true"

    def sample(self, subject: Subject) -> float:
        return subject("run", "--bundle", self.bundles.true, self.new_id(subject)).ms

    def peak(self, subject: Subject, time: str) -> int:
        return subject.peak_kib(time, "run", "--bundle", self.bundles.true, self.new_id(subject))


class Lifecycle(Scenario):
    name = "create + start + delete"

    def sample(self, subject: Subject) -> float:
        name = self.new_id(subject)
        pid_file = f"{subject.output}-pid"
        took = subject("create", "--bundle", self.bundles.true, "--pid-file", pid_file, name).ms
        pid = int(pathlib.Path(pid_file).read_text())
        took += subject("start", name).ms
        wait_gone(pid)
        return took + subject("delete", name).ms


class InContainer(Scenario):
    """Something done to one long-running container."""

    arguments: tuple[str, ...] = ()

    def prepare(self, subject: Subject) -> Iterator[None]:
        self.finish(subject)
        subject("run", "--detach", "--bundle", self.bundles.sleep, self._id(subject))
        yield

    def sample(self, subject: Subject) -> float:
        return subject(*self._command(subject)).ms

    def peak(self, subject: Subject, time: str) -> int:
        return subject.peak_kib(time, *self._command(subject))

    def finish(self, subject: Subject) -> None:
        subject("delete", "--force", self._id(subject), allow_failure=True)

    def _id(self, subject: Subject) -> str:
        return f"{subject.prefix}-stays"

    def _command(self, subject: Subject) -> list[str]:
        verb, *rest = self.arguments
        return [verb, self._id(subject), *rest]


class ExecTrue(InContainer):
    name = "exec true"
    arguments = ("exec", "/bin/true")


class State(InContainer):
    name = "state"
    arguments = ("state",)


class Kill(InContainer):
    name = "kill"
    arguments = ("kill", "CONT")


class List(Scenario):
    """`list` over many containers in status created."""

    def __init__(self, bundles: Bundles, containers: int) -> None:
        super().__init__(bundles)
        self.containers = containers
        self.name = f"list, {containers} containers"

    def prepare(self, subject: Subject) -> Iterator[None]:
        for name in self._ids(subject):
            subject("create", "--bundle", self.bundles.sleep, name)
            yield

    def sample(self, subject: Subject) -> float:
        return subject("list").ms

    def peak(self, subject: Subject, time: str) -> int:
        return subject.peak_kib(time, "list")

    def finish(self, subject: Subject) -> None:
        for name in self._ids(subject):
            subject("delete", "--force", name, allow_failure=True)

    def _ids(self, subject: Subject) -> list[str]:
        return [f"{subject.prefix}-many{number}" for number in range(self.containers)]


def wait_gone(pid: int) -> None:
    """Wait until a process has ended (a zombie counts as ended)."""
    while True:
        try:
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state in "ZX":
            return
        time.sleep(0.001)


def all_of(bundles: Bundles, containers: int) -> list[Scenario]:
    """Every scenario, in the order of the table."""
    simple = (RunTrue, Lifecycle, ExecTrue, State, Kill)
    return [*(kind(bundles) for kind in simple), List(bundles, containers)]


def sweep(subjects: list[Subject]) -> None:
    """Remove the containers that an interrupted scenario left."""
    for subject in subjects:
        for name in sorted(os.listdir(subject.root)):
            if name.startswith(subject.prefix):
                subject("delete", "--force", name, allow_failure=True)

"""The runtime under test: runs `bin/sysvisor-runc` on a state root of its own and looks at what it did.

Output goes to files, never to pipes: a detached container keeps the caller's stdio, and a reader waiting for
end-of-file on a pipe would wait for the container.
"""

import contextlib
import itertools
import json
import os
import pathlib
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

from sysvisor_runc.launch import tell

SOURCE = pathlib.Path(__file__).resolve().parents[2]
# How much longer to wait than usual, where everything is slow.
PATIENCE = float(os.environ.get("SYSVISOR_PATIENCE", "1"))
PROGRAM = pathlib.Path(os.environ.get("SYSVISOR_RUNC", SOURCE / "bin/sysvisor-runc"))


class Result:
    """What a command came to: `returncode` (negative: a signal), `stdout` and `stderr` as text, `args`."""

    def __init__(self, args: list[str], returncode: int, stdout: str, stderr: str) -> None:
        self.args = args
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr

    def __repr__(self) -> str:
        return f"{' '.join(self.args)} -> {self.returncode}\nstdout: {self.stdout}\nstderr: {self.stderr}"

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


class Running:
    """A command in the background, its output in files. `wait()` gives the Result."""

    def __init__(self, args: list[str], process: subprocess.Popen[bytes], directory: pathlib.Path) -> None:
        self.args = args
        self.process = process
        self._directory = directory

    def wait(self, timeout: float = 30) -> Result:
        code = self.process.wait(timeout * PATIENCE)
        return Result(self.args, code, self._read("stdout"), self._read("stderr"))

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._read("stdout")

    def _read(self, name: str) -> str:
        return (self._directory / name).read_bytes().decode(errors="surrogateescape")


class Runtime:
    """`sysvisor-runc` with a state root of its own.

    Attributes:
        root: the state root (`--root`).
        flags: global flags given to every command, such as `--no-syscont`.
        token: stands in every container id made by `id()`, so that leftovers can be told from a neighbour's.
    """

    def __init__(self, directory: pathlib.Path, *flags: str, program: pathlib.Path = PROGRAM) -> None:
        self.program = program
        self.directory = directory
        self.root = directory / "state"
        self.flags = flags
        self.token = f"svt-{secrets.token_hex(4)}"
        self._numbers = itertools.count(1)
        self._running: list[Running] = []

    def id(self) -> str:
        """A container id that nothing else on this machine uses."""
        return f"{self.token}-{next(self._numbers)}"

    def argv(self, *args: str | os.PathLike[str]) -> list[str]:
        """The whole command line for these arguments."""
        return [str(self.program), "--root", str(self.root), *self.flags, *map(str, args)]

    def start_background(self, *args: str | os.PathLike[str], **popen: Any) -> Running:
        """Start a command; keyword arguments go to Popen, stdio defaults to /dev/null and files."""
        argv = self.argv(*args)
        directory = pathlib.Path(tempfile.mkdtemp(prefix="output-", dir=self.directory))
        with open(directory / "stdout", "wb") as stdout, open(directory / "stderr", "wb") as stderr:
            defaults: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": stderr}
            process = subprocess.Popen(argv, **(defaults | popen))
        running = Running(argv, process, directory)
        self._running.append(running)
        return running

    def __call__(self, *args: str | os.PathLike[str], check: bool = True, timeout: float = 30, **popen: Any) -> Result:
        """Run a command to its end; with `check` a failure is an AssertionError that shows all output."""
        running = self.start_background(*args, **popen)
        try:
            result = running.wait(timeout)
        except subprocess.TimeoutExpired:
            running.process.kill()
            raise AssertionError(f"no end within {timeout} s: {running.wait()!r}") from None
        if check:
            assert result.returncode == 0, repr(result)
        return result

    def fails(self, *args: str | os.PathLike[str], **popen: Any) -> Result:
        """Run a command that must fail with one line of explanation and without a traceback."""
        result = self(*args, check=False, **popen)
        assert result.returncode != 0, repr(result)
        assert result.stderr, repr(result)
        assert "Traceback" not in result.stderr, repr(result)
        return result

    def state(self, container: str) -> dict[str, Any]:
        """What `state` says of a container."""
        state: dict[str, Any] = self("state", container).json
        return state

    def ids(self) -> list[str]:
        """The ids of all containers of this state root."""
        return self("list", "-q").stdout.split()

    def wait_status(self, container: str, status: str, timeout: float = 10) -> dict[str, Any]:
        """Ask until the container has that status."""
        deadline = time.monotonic() + timeout * PATIENCE
        while True:
            state = self.state(container)
            if state["status"] == status:
                return state
            assert time.monotonic() < deadline, f"{container} is {state['status']}, not {status}, after {timeout} s"
            time.sleep(0.01)

    def clean(self) -> None:
        """End background commands of ours and delete every container of this state root."""
        for running in self._running:
            if running.process.poll() is None:
                running.process.kill()
                running.process.wait(10)
        if self.root.exists():
            for container in self("list", "-q", check=False).stdout.split():
                self("delete", "--force", container, check=False)
            self.stop_supervisor()

    def stop_supervisor(self) -> None:
        """End the supervisor of this state root, if one runs, and its launcher with it."""
        if (self.root / "@supervisor").exists():
            stop_supervisor(str(self.root))


def stop_supervisor(root: str) -> None:
    """Ask the supervisor of a state root to end, and wait until it and its launcher have."""
    try:
        tell.ask(root, {"op": "stop"})
    except (tell.NoSupervisor, tell.SupervisorError):
        pass  # it ends by itself just now, or has
    wait_until(lambda: not supervisors(root), what=f"the end of the supervisor of {root}")


def supervisors(root: str) -> list[int]:
    """The processes that are a supervisor of this state root, or its launcher."""
    wanted = f"\0{root}\0supervisor\0".encode()
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if wanted in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def descriptors(pid: int) -> dict[int, str]:
    """What process `pid` has open, seen from outside: number to what it leads to; not what it closes meanwhile."""
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[int(fd)] = os.readlink(f"/proc/{pid}/fd/{fd}")
    return found


def wait_until(condition: Callable[[], object], timeout: float = 10, what: str = "the condition") -> None:
    """Poll until `condition()` is true; for kernel state that no file descriptor announces."""
    deadline = time.monotonic() + timeout * PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {timeout} s"
        time.sleep(0.01)

"""A container for tests of what is served: real namespaces and cgroups around a process that sleeps."""

import contextlib
import os
import pathlib
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

from sysvisor_fs.node import Caller, Container, Directory, File, Node

FIRST, SIZE = 300000, 65536
CGROUPS = pathlib.Path("/sys/fs/cgroup")
CONTROLLERS = ("blkio", "cpu", "cpuacct", "cpuset", "memory", "pids", "unified")
_PATIENCE = 60.0

# Unshares, waits for its ids to be mapped, becomes root in there and then the init of a pid namespace.
_INIT = """
import ctypes, os, sys
if ctypes.CDLL(None, use_errno=True).unshare(0x7E020000) != 0:
    os._exit(3)
os.write(1, b"x")
os.read(0, 1)
os.setgroups([])
os.setgid(0)
os.setuid(0)
pid = os.fork()
if pid:
    os.write(1, b"%d\\n" % pid)
    os.waitpid(pid, 0)
    os._exit(0)
os.execv("/bin/sleep", ["sleep", "1000"])
"""


class Subject:
    """A container, known to nobody but the test.

    Attributes: `container`; `pid`, of its init; `root`, a caller that is its root; `cgroups`, by controller.
    """

    def __init__(self, cgroups: dict[str, pathlib.Path], first: int = FIRST) -> None:
        self.cgroups = cgroups
        self._started: list[subprocess.Popen[bytes]] = []
        self.pid = self._start(first)
        self.container = Container(f"t{uuid.uuid4().hex[:8]}")
        self.container.registered = True
        self.container.init_pid = self.pid
        self.container.uid_first = self.container.gid_first = first
        self.container.uid_size = self.container.gid_size = SIZE
        self.container.start_boottime_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self.container.cgroups = {name: str(path) for name, path in cgroups.items()}
        self.root = Caller(first, first, self.pid)

    def _start(self, first: int) -> int:
        process = subprocess.Popen(
            [sys.executable, "-SIc", _INIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._started.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.read(1) == b"x", "namespaces cannot be made"
        for kind in ("uid_map", "gid_map"):
            pathlib.Path(f"/proc/{process.pid}/{kind}").write_text(f"0 {first} {SIZE}")
        process.stdin.write(b"x")
        process.stdin.flush()
        pid = int(process.stdout.readline())
        _wait_for(pid, "sleep")
        return pid

    def caller(self, *command: str, uid: int = 0) -> Caller:
        """A process more, in the container's namespaces as `uid` of it; `command` runs its last words, `sleep 1000`."""
        process = subprocess.Popen(
            ["nsenter", "-t", str(self.pid), "-U", "-n", "-i", "-u", "-S", str(uid), "-G", str(uid), *command,
             "sleep", "1000"], start_new_session=True,
        )  # fmt: skip
        self._started.append(process)
        _wait_for(process.pid, "sleep")
        ids = pathlib.Path(f"/proc/{process.pid}/status").read_text().partition("Uid:")[2].split()
        return Caller(int(ids[1]), int(ids[1]), process.pid)

    def inside(self, program: str, *args: str) -> subprocess.Popen[bytes]:
        """A Python program in the container's cgroups, its standard input and output ours; root of the host."""
        places = [str(path / "cgroup.procs") for path in dict.fromkeys(self.cgroups.values())]
        join = f"import os\nfor place in {places!r}:\n    open(place, 'w').write('0')\n"
        process = subprocess.Popen(
            [sys.executable, "-SIc", join + program, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._started.append(process)
        return process

    def close(self) -> None:
        """End what was started, and remove the cgroups."""
        for process in reversed(self._started):
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, 9)
        for process in self._started[1:]:
            process.kill()
        for process in self._started:
            process.wait()


def _wait_for(pid: int, name: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while pathlib.Path(f"/proc/{pid}/comm").read_text() != f"{name}\n":
        assert time.monotonic() < deadline, f"{pid} does not become {name}"
        time.sleep(0.01)


def _enable(directory: pathlib.Path) -> None:
    """On v2, every controller for what is below."""
    file = directory / "cgroup.subtree_control"
    if file.exists():
        for name in (directory / "cgroup.controllers").read_text().split():
            with contextlib.suppress(OSError):  # one that has been taken by a v1 hierarchy, or wants more
                file.write_text(f"+{name}")


@contextlib.contextmanager
def subject(first: int = FIRST) -> Iterator[Subject]:
    """A container with a cgroup of its own, two levels deep, in every hierarchy that there is."""
    token = f"fst-{uuid.uuid4().hex[:8]}"
    roots = {name: CGROUPS / name for name in CONTROLLERS if (CGROUPS / name / "cgroup.procs").exists()}
    if (CGROUPS / "cgroup.controllers").exists():
        roots = {"unified": CGROUPS}
    made: list[pathlib.Path] = []
    try:
        for root in set(roots.values()):
            for path in (root / token, root / token / "own"):
                _enable(path.parent)
                path.mkdir()
                made.append(path)
        for root in roots.values():
            for name in ("cpuset.mems", "cpuset.cpus"):
                for path in (root / token, root / token / "own"):
                    if (path / name).exists() and (path / "cpuset.effective_cpus").exists():
                        (path / name).write_text((path.parent / name).read_text())
        one = Subject({name: root / token / "own" for name, root in roots.items()}, first)
        try:
            yield one
        finally:
            one.close()
    finally:
        for path in reversed(made):
            deadline = time.monotonic() + _PATIENCE
            while True:
                try:
                    path.rmdir()
                    break
                except OSError:
                    assert time.monotonic() < deadline, f"{path} is still in use"
                    time.sleep(0.02)


def node_at(tree: Directory, container: Container, caller: Caller, path: str) -> Node:
    """What a path leads to."""
    node: Node = tree
    for part in path.split("/"):
        assert isinstance(node, Directory), f"{part} of {path}"
        node = node.lookup(container, caller, part)
    return node


def file_at(tree: Directory, container: Container, caller: Caller, path: str) -> File:
    """A file."""
    node = node_at(tree, container, caller, path)
    assert isinstance(node, File), path
    return node

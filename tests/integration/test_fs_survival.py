"""sysvisor-fs: what is killed, stopped, upgraded or stuck is replaced, and nobody who reads or writes notices."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support import fs_load
from tests.support.fs_daemon import FsDaemon

READERS, WRITERS = 20, 5
SECONDS = float(os.environ.get("SYSVISOR_FS_SURVIVAL_SECONDS", "10"))
STALL = 60.0  # seconds; more than a successor can need, on a machine however loaded, to answer what was asked


@pytest.fixture
def daemon(tmp_path: pathlib.Path) -> Iterator[FsDaemon]:
    """A daemon on the tree of the tests; everything of it is gone afterwards."""
    made = FsDaemon(tmp_path)
    yield made
    made.end()


def load(daemon: FsDaemon, kind: str, number: int) -> subprocess.Popen[str]:
    """A container's process that reads or writes until its standard input ends."""
    fds = daemon.trees(f"c{number}", "identity", "long", "value")
    expected = f"c{number} {100000 + number * 65536}"
    try:
        return subprocess.Popen(
            [sys.executable, fs_load.__file__, kind, expected, *map(str, fds)], pass_fds=fds, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
    finally:
        for fd in fds:
            os.close(fd)


def victim(fd: int) -> subprocess.Popen[bytes]:
    """A reader that is to be killed while it waits; one that meets an error ends by itself."""
    script = f"while read x </proc/self/fd/{fd}; do :; done"
    return subprocess.Popen(["sh", "-c", script], pass_fds=[fd], stderr=subprocess.DEVNULL)


class Watch:
    """Looks for processes that sleep uninterruptibly.

    Attributes:
        worst: seconds that one has been seen so without a break.
    """

    def __init__(self) -> None:
        self.worst = 0.0
        self._since: dict[int, float] = {}

    def look(self, pids: list[int]) -> None:
        """Once; every so often is the caller's."""
        now = time.monotonic()
        for pid in pids:
            if state_of(pid) == "D":
                since = self._since.setdefault(pid, now)
                self.worst = max(self.worst, now - since)
            else:
                self._since.pop(pid, None)


def state_of(pid: int) -> str:
    """A process's state as one letter; nothing when it has ended."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def content(fd: int) -> bytes:
    """What a tree's file says."""
    return pathlib.Path(f"/proc/self/fd/{fd}").read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(int(SECONDS) + 110)
@pytest.mark.parametrize("recovery", ["journal", "resend", "both"])
def test_killed_every_200_ms_nobody_notices(
    daemon: FsDaemon, recovery: str, record_property: Callable[[str, object], None]
) -> None:
    """Under 20 readers and 5 writers no access fails, none sees a wrong value, and none hangs.

    None sleeps uninterruptibly for long either, nor do readers that are killed in the middle of a reading: the kernel
    lets those go only when they have been answered.
    """
    daemon.environment["SYSVISOR_FS_RECOVERY"] = recovery
    daemon.start()
    daemon.register(*(f"c{number}" for number in range(READERS + WRITERS)))
    kinds = ["read"] * READERS + ["write"] * WRITERS
    processes = [load(daemon, kind, number) for number, kind in enumerate(kinds)]
    (fd,) = daemon.trees("c0", "identity")
    watch, victims, ends = Watch(), [victim(fd)], []
    kills, end = 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        for _ in range(4):
            time.sleep(0.05)
            watch.look([process.pid for process in processes] + [process.pid for process in victims])
        kills += bool(daemon.kill())
        victims[-1].kill()
        ends += [one.returncode for one in victims if one.poll() is not None]
        victims = [*(one for one in victims if one.returncode is None), victim(fd)]
    os.close(fd)
    victims[-1].kill()
    reports = [json.loads(process.communicate(timeout=STALL)[0]) for process in processes]
    ends += [one.wait(STALL) for one in victims]
    assert set(ends) == {-signal.SIGKILL}
    assert watch.worst < STALL
    assert [report["wrong"] for report in reports if report["count"]] == []
    assert kills > SECONDS / 2
    turns, worst = sum(report["turns"] for report in reports), max(report["worst"] for report in reports)
    told = f"{recovery}: {kills} kills, {turns} accesses, worst stall {worst * 1e3:.0f} ms, "
    told += f"{len(ends)} readers killed, longest uninterruptible sleep {watch.worst * 1e3:.0f} ms"
    record_property("survival", told)
    print(told)


def test_values_and_open_files_outlive_the_daemon(daemon: FsDaemon) -> None:
    """A successor knows what was stored, goes on with files that are open, and tells no reader a longer file."""
    daemon.start()
    daemon.register("c0")
    value, long = daemon.trees("c0", "value", "long")
    pathlib.Path(f"/proc/self/fd/{value}").write_bytes(b"42\n")
    with open(f"/proc/self/fd/{long}", "rb", buffering=0) as file:
        first = file.read(65536)
        daemon.wait_for_another(daemon.kill())
        rest = b""
        while part := file.read(65536):
            rest += part
    assert len(first) + len(rest) == 65536 * 8
    assert content(value) == b"42\n"
    os.close(value)
    os.close(long)


def test_a_stopped_daemon_leaves_its_mounts_to_the_next(daemon: FsDaemon) -> None:
    """SIGTERM ends the daemon alone: an access waits, and the next daemon answers it, as at an upgrade."""
    daemon.start()
    daemon.register("c0")
    (identity,) = daemon.trees("c0", "identity")
    daemon.stop()
    assert len(daemon.holders()) == 1
    reader = subprocess.Popen(
        ["cat", f"/proc/self/fd/{identity}"], pass_fds=[identity], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    with pytest.raises(subprocess.TimeoutExpired):
        reader.wait(0.3)
    daemon.start()
    assert reader.communicate(timeout=60)[0] == b"c0 100000\n"
    os.close(identity)


def test_without_containers_nothing_stays(daemon: FsDaemon) -> None:
    """A daemon that serves nobody takes its holder with it when it ends."""
    daemon.start()
    daemon.register("c0")
    daemon.unregister("c0")
    daemon.stop()
    deadline = time.monotonic() + 30
    while daemon.holders():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_stuck_daemon_is_replaced(daemon: FsDaemon, tmp_path: pathlib.Path) -> None:
    """One request that holds up the FUSE thread: the holder kills the daemon, and the successor answers."""
    unstick = tmp_path / "unstick"
    daemon.environment |= {"SYSVISOR_FS_TEST_UNSTICK": str(unstick), "SYSVISOR_FS_STUCK_SECONDS": "1"}
    daemon.start()
    daemon.register("c0")
    first = daemon.pid()
    stuck, identity = daemon.trees("c0", "stuck", "identity")
    reader = subprocess.Popen(
        ["cat", f"/proc/self/fd/{stuck}"], pass_fds=[stuck], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while daemon.pid() == first:
        assert time.monotonic() < deadline, daemon.log()
        time.sleep(0.05)
    unstick.touch()
    assert reader.communicate(timeout=60)[0] == b"unstuck\n", daemon.log()
    assert content(identity) == b"c0 100000\n"
    assert "stuck" in daemon.log()
    os.close(stuck)
    os.close(identity)


def test_end_of_init_unregisters(daemon: FsDaemon) -> None:
    """A container whose init has ended is forgotten even if no runtime says so, also if it ended without a daemon."""
    daemon.start()
    inits = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    daemon.register("c0", pid=inits[0].pid)
    daemon.register("c1", pid=inits[1].pid)
    (left,) = daemon.trees("c0", "identity")
    inits[0].kill()
    inits[0].wait()
    _until_served(daemon, {"c1"})
    with pytest.raises(OSError, match="not connected"):
        content(left)
    os.close(left)
    daemon.stop()
    inits[1].kill()
    inits[1].wait()
    daemon.start()
    _until_served(daemon, set())


def _until_served(daemon: FsDaemon, ids: set[str]) -> None:
    deadline = time.monotonic() + 30
    while {one["id"] for one in daemon.status()["containers"]} != ids:
        assert time.monotonic() < deadline, daemon.log()
        time.sleep(0.05)


def test_second_daemon_is_refused(daemon: FsDaemon) -> None:
    """One daemon a run directory: the second says who serves it, and disturbs nothing."""
    daemon.start()
    second = daemon.command()
    assert second.wait(30) == 3
    assert f"served already by process {daemon.pid()}" in daemon.log()
    assert daemon.answers()


def test_poller_is_woken_across_a_restart(daemon: FsDaemon) -> None:
    """A trigger that fires while a successor serves wakes whoever polls the file."""
    import select

    daemon.start()
    daemon.register("c0")
    (pressure,) = daemon.trees("c0", "pressure")
    file = os.open(f"/proc/self/fd/{pressure}", os.O_RDWR)
    os.write(file, b"1500")
    poll = select.poll()
    poll.register(file, select.POLLPRI)
    assert poll.poll(100) == []
    daemon.wait_for_another(daemon.kill())
    assert poll.poll(30000) == [(file, select.POLLPRI)]
    os.close(file)
    os.close(pressure)


def test_interrupt_ends_a_wait(daemon: FsDaemon) -> None:
    """A signal ends a reader that waits for a slow file, and the file's deadline ends one that nobody signals."""
    daemon.start()
    daemon.register("c0")
    (slow,) = daemon.trees("c0", "sleep60")
    readers = [subprocess.Popen(["cat", f"/proc/self/fd/{slow}"], pass_fds=[slow], stderr=subprocess.PIPE, text=True,
                                env={**os.environ, "LC_ALL": "C"}) for _ in range(2)]  # fmt: skip
    time.sleep(0.2)
    readers[0].send_signal(signal.SIGTERM)
    assert readers[0].wait(30) == -signal.SIGTERM
    assert "timed out" in readers[1].communicate(timeout=60)[1]
    readers[0].communicate()
    os.close(slow)

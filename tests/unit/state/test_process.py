"""Recorded processes: the right one is found, and never another that has its pid."""

import os
import pathlib
import signal
import subprocess
import threading
from collections.abc import Iterator

import pytest

from sysvisor_runc.errors import StateError
from sysvisor_runc.state import process
from sysvisor_runc.state.observe import is_frozen, is_waiting, observe, observe_unrecorded
from sysvisor_runc.state.record import new_record
from sysvisor_runc.state.store import Entry, Store

Process = subprocess.Popen[bytes]


@pytest.fixture
def sleeping() -> Iterator[Process]:
    """A process to look at."""
    with subprocess.Popen(["/bin/sleep", "1000"]) as started:
        yield started
        started.kill()


@pytest.fixture
def entry(tmp_path: pathlib.Path) -> Iterator[Entry]:
    """A container's directory."""
    with Store(str(tmp_path / "state")).create("c") as made:
        made.unlock()
        yield made


def record_of(pid: int, start: int, status: str = "running") -> dict[str, object]:
    """A record with this init."""
    made = new_record("c", bundle="/b", rootfs="/r", spec={"ociVersion": "1"}, flags={}, syscont=True)  # type: ignore[typeddict-item]
    return {**made, "initPid": pid, "initStart": start, "status": status}


def end(sleeping: Process) -> None:
    """Kill it, and leave it a zombie."""
    sleeping.kill()
    os.waitid(os.P_PID, sleeping.pid, os.WEXITED | os.WNOWAIT)


def test_a_process_is_alive_until_it_is_a_zombie(sleeping: Process) -> None:
    """Ended but not reaped counts as dead, as it does for runc."""
    start = process.start_time(sleeping.pid)
    assert process.is_alive(sleeping.pid, start)
    end(sleeping)
    assert not process.is_alive(sleeping.pid, start)
    with pytest.raises(ProcessLookupError):
        process.open_process(sleeping.pid, start)
    sleeping.wait()
    assert not process.is_alive(sleeping.pid, start)
    with pytest.raises(ProcessLookupError):
        process.start_time(sleeping.pid)


@pytest.mark.parametrize("pid", [0, -1, 2**31 - 1])
def test_what_is_no_pid_is_not_alive(pid: int) -> None:
    """No init recorded yet, or nonsense."""
    assert not process.is_alive(pid, 0)
    with pytest.raises(ProcessLookupError):
        process.open_process(pid, 0)


def test_a_name_cannot_forge_a_state(tmp_path: pathlib.Path) -> None:
    """A command named like a line of /proc/PID/stat is still read rightly."""
    program = tmp_path / ") Z 1 1 1 ("
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "1000"]) as started:
        stat = process.read_stat(started.pid)
        assert stat is not None
        assert stat.alive
        assert stat.start > 0
        started.kill()


def test_a_process_outlives_its_main_thread() -> None:
    """A leader that has ended shows as a zombie, but with other threads the process is alive."""
    script = "import threading, ctypes, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()\n"
    script += "print(flush=True)\nctypes.CDLL(None).pthread_exit(None)"
    with subprocess.Popen(["/usr/bin/python3", "-c", script], stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        started.stdout.readline()
        while b") Z " not in pathlib.Path(f"/proc/{started.pid}/stat").read_bytes():
            pass
        assert process.is_alive(started.pid, process.start_time(started.pid))
        started.kill()


def test_a_reused_pid_is_not_opened(sleeping: Process) -> None:
    """Somebody else's start time under the recorded pid means that the container is not running."""
    start = process.start_time(sleeping.pid)
    with pytest.raises(StateError, match="container not running"):
        process.open_init(record_of(sleeping.pid, start - 1))  # type: ignore[arg-type]
    assert sleeping.poll() is None


def test_a_thread_that_has_the_pid_is_not_opened() -> None:
    """Thread ids come from the same numbers."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        with pytest.raises(ProcessLookupError):
            process.open_process(thread.native_id, 1)
    finally:
        stop.set()
        thread.join()


def test_signals_go_to_the_recorded_init(sleeping: Process) -> None:
    """Through the pidfd, and to nobody once it has been reaped."""
    pidfd = process.open_init(record_of(sleeping.pid, process.start_time(sleeping.pid)))  # type: ignore[arg-type]
    try:
        assert not process.wait_exit(pidfd, 0)
        process.send_signal(pidfd, signal.SIGTERM)
        assert process.wait_exit(pidfd, 10)
        assert sleeping.wait() == -signal.SIGTERM
        assert process.wait_exit(pidfd)
        with pytest.raises(StateError, match="container not running"):
            process.send_signal(pidfd, 0)
    finally:
        os.close(pidfd)


def test_an_impossible_signal_is_told(sleeping: Process) -> None:
    """With its number, and as an error of the state rather than a traceback."""
    pidfd = os.pidfd_open(sleeping.pid)
    with pytest.raises(StateError, match="signal 99: invalid argument"):
        process.send_signal(pidfd, 99)
    os.close(pidfd)


@pytest.mark.root
def test_a_process_is_opened_by_its_handle(sleeping: Process) -> None:
    """And not once it has been reaped."""
    pidfd = os.pidfd_open(sleeping.pid)
    handle, start = process.handle_of(pidfd), process.start_time(sleeping.pid)
    os.close(pidfd)
    if not handle:
        pytest.skip("pidfds have no file handles on this kernel; to force it: boot Linux 6.14 or later")
    os.close(process.open_process(sleeping.pid, start, handle))
    sleeping.kill()
    sleeping.wait()
    with pytest.raises(ProcessLookupError):
        process.open_process(sleeping.pid, start, handle)


def test_how_it_ended_is_known_after_the_reap(sleeping: Process) -> None:
    """Where the kernel keeps it."""
    pidfd = os.pidfd_open(sleeping.pid)
    assert process.wait_status(pidfd) is None
    sleeping.kill()
    sleeping.wait()
    assert process.wait_status(pidfd) in (signal.SIGKILL, None)
    os.close(pidfd)


# ---- statuses


def test_the_start_pipe_tells_created_from_running(entry: Entry) -> None:
    """`created` lasts exactly as long as init holds the pipe, which ends by itself when it executes a program."""
    os.mkfifo(f"{entry.path}/{entry.FIFO}", 0o622)
    script = f"exec 3<>{entry.path}/{entry.FIFO}; echo; read x; exec 3<&-; echo; exec sleep 1000"
    with subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as init:
        assert init.stdin is not None
        assert init.stdout is not None
        init.stdout.readline()
        record = record_of(init.pid, process.start_time(init.pid), "created")
        assert observe(entry, record) == "created"  # type: ignore[arg-type]
        assert observe(entry, record) == "created"  # type: ignore[arg-type]
        init.stdin.write(b"\n")
        init.stdin.flush()
        init.stdout.readline()
        assert observe(entry, record) == "running"  # type: ignore[arg-type]
        end(init)
        assert observe(entry, record) == "stopped"  # type: ignore[arg-type]


def test_without_a_pipe_nobody_waits(entry: Entry) -> None:
    """Neither a missing pipe nor one without a reader is a container that waits."""
    assert not is_waiting(entry)
    os.mkfifo(f"{entry.path}/{entry.FIFO}")
    assert not is_waiting(entry)


def test_creating_lasts_as_long_as_the_command(entry: Entry) -> None:
    """Without the command, or an init that still lives, what is left is as good as stopped."""
    record = record_of(0, 0, "creating")
    with Store(os.path.dirname(entry.path)).open("c") as command:
        with command.lock():
            assert observe(entry, record) == "creating"  # type: ignore[arg-type]
            assert observe_unrecorded(entry) == "creating"
            # To the holder itself there is no other command.
            assert observe(command, record) == "stopped"  # type: ignore[arg-type]
        assert observe(entry, record) == "stopped"  # type: ignore[arg-type]
        assert observe_unrecorded(entry) == "stopped"


def test_a_cgroup_that_is_gone_is_not_frozen(tmp_path: pathlib.Path) -> None:
    """Nor is none at all."""
    for paths in ({}, {"freezer": str(tmp_path / "x")}, {"unified": str(tmp_path / "x")}):
        record = {**record_of(0, 0), "cgroup": {"driver": "cgroupfs", "paths": paths, "leaf": ""}}
        assert not is_frozen(record)  # type: ignore[arg-type]

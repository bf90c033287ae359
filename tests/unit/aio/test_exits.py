"""The ends of many processes at once, each told once, without spinning on a zombie."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable

import pytest

from sysvisor_runc.aio import exits
from sysvisor_runc.aio.exits import ExitWatch
from sysvisor_runc.state.process import start_time
from tests.support.loops import Run


def child(code: int | None = None) -> tuple[int, int]:
    """A child that waits to be killed, or exits with a code; its pid and pidfd."""
    pid = os.fork()
    if pid == 0:
        if code is not None:
            os._exit(code)
        while True:
            signal.pause()
    return pid, os.pidfd_open(pid)


def test_two_hundred_at_once(run: Run) -> None:
    """All that die in the same moment are told, each with its end."""
    children = {pidfd: pid for pid, pidfd in (child() for _ in range(200))}
    starts = {pid: start_time(pid) for pid in children.values()}
    found: dict[int, int | None] = {}

    async def main() -> None:
        done = asyncio.Event()

        def happened(pidfd: int, _reaped: bool) -> None:
            pid = children[pidfd]
            found.setdefault(pid, watch.wait_status(pidfd, pid, starts[pid]))
            watch.forget(pidfd)
            if len(found) == len(children):
                done.set()

        watch = ExitWatch(asyncio.get_running_loop(), happened)
        for pidfd, pid in children.items():
            watch.watch(pidfd, pid)
        for pid in children.values():
            os.kill(pid, signal.SIGKILL)
        await asyncio.wait_for(done.wait(), 20)
        watch.close()

    run(main())
    for pidfd in children:
        os.close(pidfd)
    assert set(found.values()) == {9}


def test_a_zombie_is_told_once_and_its_end_again(run: Run) -> None:
    """Somebody else's zombie is told when it dies and when it is reaped (Linux 6.15), and turns no loop meanwhile."""
    reading, writing = os.pipe()
    # Blocked before the fork: it may come before the child waits for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    parent = os.fork()
    if parent == 0:
        pid = os.fork()
        if pid == 0:
            os.read(reading, 1)
            os._exit(5)
        signal.sigwait({signal.SIGUSR1})
        os.write(writing, b"x")  # let it go
        signal.sigwait({signal.SIGUSR1})
        os.waitpid(pid, 0)
        signal.pause()
    with open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as file:
        while not (text := file.read().split()):
            file.seek(0)
    pid = int(text[0])
    pidfd, start = os.pidfd_open(pid), start_time(pid)
    told: list[tuple[bool, int | None]] = []

    async def main() -> None:
        heard = asyncio.Event()

        def happened(fd: int, reaped: bool) -> None:
            told.append((reaped, watch.wait_status(fd, pid, start)))
            heard.set()

        watch = ExitWatch(asyncio.get_running_loop(), happened)
        watch.watch(pidfd, pid)
        os.kill(parent, signal.SIGUSR1)
        await asyncio.wait_for(heard.wait(), 20)
        await asyncio.sleep(0.1)
        assert told == [(False, 5 << 8)]
        heard.clear()
        os.kill(parent, signal.SIGUSR1)
        try:
            await asyncio.wait_for(heard.wait(), 5)
            assert told[1:] == [(True, 5 << 8)]
        except TimeoutError:
            assert tuple(map(int, os.uname().release.split(".")[:2])) < (6, 15)
        watch.close()

    try:
        run(main())
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        for fd in (pidfd, reading, writing):
            os.close(fd)


# Starts a process that ends with 7 once there is a line to read, says its pid, and reaps it at once.
REAPER = "exec 3<&0; sh -c 'read line <&3; exit 7' & echo $!; wait; sleep 1000"


@pytest.mark.root
def test_where_a_pidfd_tells_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.15 the end of a process that somebody else has reaped is known as well."""
    monkeypatch.setattr(exits, "_kernel_keeps_status", lambda: False)
    monkeypatch.setattr(exits, "_told", lambda pidfd: None)
    monkeypatch.setattr(exits, "zombie_status", lambda pid, start: None)
    told: list[int | None] = []

    async def main(pid: int, pidfd: int, go: Callable[[], object]) -> None:
        heard = asyncio.Event()

        def happened(fd: int, _reaped: bool) -> None:
            told.append(watch.wait_status(fd, pid, start))
            heard.set()

        start = start_time(pid)
        watch = ExitWatch(asyncio.get_running_loop(), happened)
        watch.watch(pidfd, pid)
        go()
        await asyncio.wait_for(heard.wait(), 20)
        watch.forget(pidfd)
        watch.close()

    with subprocess.Popen(["sh", "-c", REAPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reaper:
        try:
            assert reaper.stdin is not None and reaper.stdout is not None
            line = reaper.stdin.fileno()
            pid = int(reaper.stdout.readline())
            pidfd = os.pidfd_open(pid)
            run(main(pid, pidfd, lambda: os.write(line, b"\n")))
            os.close(pidfd)
        finally:
            reaper.kill()
    assert told == [7 << 8]

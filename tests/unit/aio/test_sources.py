"""Signals and ends of processes as events, on either loop; and which loop is chosen."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sysvisor_runc.aio import loop as loops
from sysvisor_runc.aio.process import ExitSource, exit_code
from sysvisor_runc.aio.signals import SignalSource
from sysvisor_runc.kernel import signals
from tests.support.loops import LOOPS, require


@pytest.fixture(params=LOOPS)
def loop_name(request: pytest.FixtureRequest) -> str:
    """The name of each loop that is installed."""
    name: str = request.param
    require(name)
    return name


@pytest.fixture
def blocked() -> Iterator[None]:
    """SIGUSR1 and SIGUSR2 blocked for the test."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1, signal.SIGUSR2))
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.usefixtures("blocked")
def test_each_signal_is_received(loop_name: str) -> None:
    """Signals that came before the loop ran and while it runs are told by number."""

    async def main() -> list[int]:
        received: asyncio.Queue[int] = asyncio.Queue()
        numbers = [signal.SIGUSR1, signal.SIGUSR2]
        os.kill(os.getpid(), signal.SIGUSR2)
        source = SignalSource(
            asyncio.get_running_loop(), signals.signalfd([int(n) for n in numbers]), received.put_nowait
        )
        first = await asyncio.wait_for(received.get(), 10)
        os.kill(os.getpid(), signal.SIGUSR1)
        second = await asyncio.wait_for(received.get(), 10)
        source.close()
        return [first, second]

    assert loops.run(main(), prefer=loop_name) == [signal.SIGUSR2, signal.SIGUSR1]


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("exit 0", 0)])
def test_the_end_of_a_process_is_told_with_its_code(loop_name: str, script: str, code: int) -> None:
    """The exit code is the process's own, or 128 and the signal's number."""

    process = subprocess.Popen(["/bin/sh", "-c", script])
    pidfd = os.pidfd_open(process.pid)

    async def main() -> int | None:
        ended = asyncio.Event()
        ExitSource(asyncio.get_running_loop(), pidfd, ended.set)
        await asyncio.wait_for(ended.wait(), 10)
        return exit_code(pidfd)

    process.returncode = loops.run(main(), prefer=loop_name)  # reaped behind its back
    os.close(pidfd)
    assert process.returncode == code


def test_the_code_of_a_reaped_process_comes_from_the_kernel() -> None:
    """Where somebody else has reaped it, PIDFD_GET_INFO tells (Linux 6.15), else the code is unknown."""
    process = subprocess.Popen(["/bin/sh", "-c", "exit 9"])
    pidfd = os.pidfd_open(process.pid)
    process.wait(10)
    assert exit_code(pidfd) in (9, None)
    os.close(pidfd)


def test_the_preferred_loop_runs(loop_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's preference counts, and the environment overrides it."""

    async def module() -> str:
        return type(asyncio.get_running_loop()).__module__.split(".")[0]

    assert loops.run(module(), prefer=loop_name) == loop_name
    monkeypatch.setenv(loops.VARIABLE, "asyncio")
    assert loops.run(module(), prefer=loop_name) == "asyncio"


def test_the_loop_comes_without_tls() -> None:
    """asyncio is loaded without the ssl module, which can still be imported afterwards."""
    script = (
        "import sys; import sysvisor_runc.aio.loop; print('ssl' in sys.modules); import ssl; print(ssl.PROTOCOL_TLS)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.startswith("False\n"), done.stdout + done.stderr
    assert done.returncode == 0, done.stderr

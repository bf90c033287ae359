"""The process events connector: how processes end that are nobody's children here."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sysvisor_runc.kernel.proc_connector import FEW, ProcConnector

pytestmark = pytest.mark.root

EARLY = """
import ctypes, os, sys, threading
def later():
    while os.path.exists(f"/proc/self/task/{os.getpid()}/exe"):
        pass
    os._exit(5)
threading.Thread(target=later).start()
ctypes.CDLL(None).syscall(60, 3)
"""


@pytest.fixture
def connector() -> Iterator[ProcConnector]:
    try:
        made = ProcConnector()
    except OSError as error:
        pytest.skip(f"{error}; to force it: root of the host, and a kernel with CONFIG_PROC_EVENTS")
    yield made
    made.close()


def waiting() -> subprocess.Popen[bytes]:
    """A process that runs until it is killed."""
    return subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal(connector: ProcConnector, how: signal.Signals) -> None:
    """As wait(2) would say it, whoever has reaped the process."""
    process = waiting()
    connector.watch(process.pid)
    assert connector.wait_status(process.pid) is None
    process.send_signal(how)
    process.wait()
    assert connector.wait_status(process.pid) == how


def test_others_are_dropped_by_the_kernel(connector: ProcConnector) -> None:
    """What is not watched does not even wake us."""
    watched, other = waiting(), waiting()
    connector.watch(watched.pid)
    other.kill()
    other.wait()
    os.set_blocking(connector.fileno(), False)
    with pytest.raises(BlockingIOError):
        os.read(connector.fileno(), 4096)
    watched.kill()
    watched.wait()
    assert len(os.read(connector.fileno(), 4096)) > 60
    connector.forget(watched.pid)
    assert connector.wait_status(watched.pid) is None


def test_many(connector: ProcConnector) -> None:
    """More than the kernel can be given a check for are known as well, and few again are as few."""
    processes = [waiting() for _ in range(3)]
    invented = [1 << 29 | number for number in range(2 * FEW)]
    for pid in (*invented, *(process.pid for process in processes)):
        connector.watch(pid)
    for process in processes[:2]:
        process.kill()
        process.wait()
    assert [connector.wait_status(process.pid) for process in processes] == [9, 9, None]
    for pid in invented:
        connector.forget(pid)
    processes[2].kill()
    processes[2].wait()
    assert connector.wait_status(processes[2].pid) == 9


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="exit(2) has another number; to force it: x86_64")
def test_a_first_thread_that_leaves_early_says_nothing(connector: ProcConnector) -> None:
    """Its code is not the process's, which ends with another one later: better unknown than wrong."""
    program = [sys.executable, "-c", f"input(); exec({EARLY!r})"]
    process = subprocess.Popen(program, stdin=subprocess.PIPE)
    connector.watch(process.pid)
    process.communicate(b"\n")
    assert process.returncode == 5
    assert connector.wait_status(process.pid) is None

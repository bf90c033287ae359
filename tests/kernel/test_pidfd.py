"""pidfds against the running kernel: signals, exit codes, and handles that outlive the descriptor."""

import errno
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from sysvisor_runc.kernel import pidfd

Process = subprocess.Popen[bytes]


@pytest.fixture
def process() -> Iterator[Process]:
    """A process to act on."""
    with subprocess.Popen(["/bin/sleep", "1000"]) as sleeping:
        yield sleeping
        sleeping.kill()


@pytest.fixture
def fd(process: Process) -> Iterator[int]:
    """A pidfd of it."""
    opened = pidfd.pidfd_open(process.pid)
    yield opened
    os.close(opened)


def info(fd: int) -> pidfd.PidfdInfo:
    """What PIDFD_GET_INFO tells, or a skip."""
    try:
        return pidfd.pidfd_get_info(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTTY):
            raise
        pytest.skip("this kernel has no PIDFD_GET_INFO; to force it: boot Linux 6.13 or later")


def handle(fd: int) -> bytes:
    """Its file handle, or a skip."""
    try:
        return pidfd.name_to_handle_at(fd)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        pytest.skip("pidfds have no file handles on this kernel; to force it: boot Linux 6.14 or later")


def test_pidfd_is_close_on_exec(fd: int) -> None:
    """A pidfd never reaches a program that we execute."""
    assert not os.get_inheritable(fd)


def test_a_signal_arrives(process: Process, fd: int) -> None:
    """pidfd_send_signal reaches the process behind the descriptor."""
    pidfd.pidfd_send_signal(fd, signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM


def test_a_reaped_process_cannot_be_signalled(process: Process, fd: int) -> None:
    """Once it is reaped the signal goes nowhere, whoever has the pid by then."""
    process.kill()
    process.wait(10)
    with pytest.raises(ProcessLookupError):
        pidfd.pidfd_send_signal(fd, 0)


def test_opening_nobody_fails(process: Process) -> None:
    """pidfd_open of a pid that is gone says so."""
    process.kill()
    process.wait(10)
    with pytest.raises(ProcessLookupError):
        pidfd.pidfd_open(process.pid)


def test_info_of_a_live_process(process: Process, fd: int) -> None:
    """The kernel tells pid, parent and ids, and no exit."""
    found = info(fd)
    assert (found.pid, found.ppid, found.uid, found.gid) == (process.pid, os.getpid(), os.geteuid(), os.getegid())
    assert found.wait_status is None


def test_info_keeps_the_exit_status_after_the_reap(process: Process, fd: int) -> None:
    """How a process ended can be asked even after its parent has taken the status."""
    info(fd)
    process.kill()
    process.wait(10)
    try:
        status = info(fd).wait_status
    except ProcessLookupError:
        pytest.skip("this kernel forgets exit statuses; to force it: boot Linux 6.15 or later")
    assert status is not None
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def test_a_handle_opens_the_same_process(process: Process, fd: int) -> None:
    """A handle leads back to the process as long as it has not been reaped."""
    if os.geteuid() != 0:
        pytest.skip("open_by_handle_at needs root; to force it: sudo make test")
    again = pidfd.open_by_handle_at(fd, handle(fd))
    try:
        assert os.path.samestat(os.fstat(again), os.fstat(fd))
        assert not os.get_inheritable(again)
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PIDFD, again, os.WEXITED | os.WNOWAIT)
    finally:
        os.close(again)


def test_a_handle_of_a_reaped_process_is_stale(process: Process, fd: int) -> None:
    """It leads to nobody else."""
    kept = handle(fd)
    process.kill()
    process.wait(10)
    with pytest.raises(OSError) as caught:
        pidfd.open_by_handle_at(fd, kept)
    assert caught.value.errno in (errno.ESTALE, errno.EPERM)


def test_a_descriptor_is_duplicated(fd: int, process: Process) -> None:
    """pidfd_getfd brings over what the other process has open, close-on-exec."""
    copy = pidfd.pidfd_getfd(fd, 0)
    try:
        assert os.path.samestat(os.fstat(copy), os.stat(f"/proc/{process.pid}/fd/0"))
        assert not os.get_inheritable(copy)
    finally:
        os.close(copy)


@pytest.mark.parametrize("broken", [b"", b"\x08\0\0\0\xfe\0\0\0", b"\xff" * 16])
def test_a_malformed_handle_never_reaches_the_kernel(fd: int, broken: bytes) -> None:
    """A handle whose length lies would make the kernel read beyond it."""
    with pytest.raises(OSError) as caught:
        pidfd.open_by_handle_at(fd, broken)
    assert caught.value.errno == errno.EINVAL

"""Messages to a service manager, and descriptors from it, with a socket of our own in its place."""

import os
import pathlib
import socket
import sys
from collections.abc import Iterator

import pytest

from sysvisor_runc.kernel import sd_notify
from tests.support.notified import Manager


@pytest.fixture
def manager(tmp_path: pathlib.Path) -> Iterator[Manager]:
    with Manager(str(tmp_path / "notify")) as listening:
        yield listening


def test_assignments_are_lines(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line each; what would break a line, and so forge an assignment, becomes a blank."""
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    assert sd_notify.notify(READY=1, STATUS="two\nMAINPID=1")
    assert manager.receive() == ("READY=1\nSTATUS=two MAINPID=1", [])


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1", "@"])
def test_nobody_to_tell(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a socket that can be reached nothing happens."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not sd_notify.notify(READY=1)


def test_a_manager_that_is_gone(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that nobody listens on any more is no failure of ours."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not sd_notify.notify(READY=1)


def test_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """@ stands for the zero byte of the abstract name space."""
    address = f"@sysvisor-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with Manager(address) as manager:
        assert sd_notify.notify(STATUS="über")
        assert manager.receive()[0] == "STATUS=über"


def test_a_socket_made_anew_is_found_again(tmp_path: pathlib.Path) -> None:
    """A manager that comes back under the same name is told all the same."""
    path = str(tmp_path / "notify")
    with Manager(path):
        link = sd_notify.NotifySocket(path)
        assert link.send(b"READY=1")
    os.unlink(path)
    with Manager(path) as again:
        assert link.send(b"READY=1")
        assert again.receive()[0] == "READY=1"
    link.close()


def test_a_full_queue_is_told(manager: Manager) -> None:
    """What the manager does not read is not waited for unless asked."""
    link = sd_notify.NotifySocket(manager.address)
    for _ in range(100_000):
        if not link.send(b"WATCHDOG=1"):
            break
    else:
        pytest.fail("the queue has no end")
    assert not link.send(b"WATCHDOG=1", wait=0.01)
    link.close()


def test_descriptors_are_kept_by_name(manager: Manager) -> None:
    """The store gets each with its name, and unpolled."""
    link = sd_notify.NotifySocket(manager.address)
    reader, writer = os.pipe()
    assert sd_notify.store(link, "console.web", reader, writer)
    text, fds = manager.receive()
    assert text == "FDSTORE=1\nFDPOLL=0\nFDNAME=console.web"
    assert [os.fstat(fd).st_ino for fd in fds] == [os.fstat(fd).st_ino for fd in (reader, writer)]
    assert sd_notify.forget(link, "console.web")
    assert manager.receive()[0] == "FDSTOREREMOVE=1\nFDNAME=console.web"
    for fd in (reader, writer, *fds):
        os.close(fd)
    link.close()


def test_a_barrier_ends_when_the_manager_closes_it(manager: Manager) -> None:
    """Its descriptor reads end-of-file then, and would block before."""
    link = sd_notify.NotifySocket(manager.address)
    reader = sd_notify.barrier(link)
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    text, (fd,) = manager.receive()
    assert text == "BARRIER=1"
    os.close(fd)
    assert os.read(reader, 1) == b""
    os.close(reader)
    link.close()


@pytest.mark.parametrize("name", ["a" * 300, "with:colon", "line\nbreak", "ü"])
def test_names_that_the_store_would_refuse(name: str) -> None:
    """They become others, the same each time, and different ones stay different."""
    made = sd_notify.fd_name(name)
    assert made == sd_notify.fd_name(name) != sd_notify.fd_name(f"{name}x")
    assert made.isascii() and made.isprintable() and ":" not in made and len(made) <= 255
    assert sd_notify.fd_name("console.web") == "console.web"


def test_the_watchdog_is_the_process_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """WATCHDOG_PID= of somebody else, or a value that is no number, means none."""
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert sd_notify.watchdog_usec() == 3_000_000
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert sd_notify.watchdog_usec() == 0
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert sd_notify.watchdog_usec() == 3_000_000
    monkeypatch.setenv("WATCHDOG_USEC", "-5")
    assert sd_notify.watchdog_usec() == 0


_LISTEN = """
import os, sys
sys.path.insert(0, sys.argv[1])
from sysvisor_runc.kernel import sd_notify
os.environ.update(LISTEN_PID=str(os.getpid() + int(sys.argv[2])), LISTEN_FDS=sys.argv[3], LISTEN_FDNAMES="one:")
for name, fd in sd_notify.listen_fds():
    print(name, fd, os.get_inheritable(fd))
"""


@pytest.mark.parametrize(
    ("offset", "count", "expected"),
    [
        ("0", "2", "one 3 False\nunknown 4 False\n"),
        ("0", "1", "one 3 False\n"),
        ("0", "99999999999", "one 3 False\nunknown 4 False\n"),
        ("1", "2", ""),
        ("0", "-1", ""),
        ("0", "²", ""),
    ],
)
def test_descriptors_from_the_manager(offset: str, count: str, expected: str) -> None:
    """From 3 on, named, close-on-exec, up to the first that is not open; none if they are another process's."""
    source = str(pathlib.Path(__file__).parents[2])
    left, right = socket.socketpair()
    told, writer = os.pipe()
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-SI", "-c", _LISTEN, source, offset, count],
        {"LANG": "C.UTF-8"},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, writer, 1),
            (os.POSIX_SPAWN_DUP2, left.fileno(), 3),
            (os.POSIX_SPAWN_DUP2, right.fileno(), 4),
        ],
    )
    os.close(writer)
    with open(told) as output:
        assert output.read() == expected
    assert os.waitpid(pid, 0)[1] == 0
    left.close()
    right.close()


def test_nobody_inherits_what_we_were_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """All variables of the manager are gone afterwards."""
    for name in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.setenv(name, "1")
    sd_notify.clear_environment()
    assert not [name for name in os.environ if name.startswith(("NOTIFY_", "LISTEN_", "WATCHDOG_"))]

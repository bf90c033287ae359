"""The gRPC contract of sysvisor-fs as other programs meet it, and who may: names, status codes, sockets."""

import json
import os
import pathlib
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sysvisor_runc.contract import names
from tests.support.fs_own import PROGRAM, OwnDaemon
from tests.support.runtime import SOURCE, wait_until


@pytest.fixture
def daemon(tmp_path: pathlib.Path) -> Iterator[OwnDaemon]:
    """A running daemon."""
    daemon = OwnDaemon(tmp_path)
    with open(tmp_path / "log", "wb") as log:
        argv = [str(PROGRAM), f"--run-dir={daemon.run_dir}", f"--mountpoint={daemon.mountpoint}"]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    wait_until(lambda: daemon.command("status").returncode == 0, 60, "a daemon")
    yield daemon
    daemon.stop()
    process.wait(30)


def test_names_and_codes(daemon: OwnDaemon) -> None:
    """All names of the service answer, and each failure has the status code that the contract gives it."""
    script = SOURCE / "tests/support/fs_client.py"
    argv = [sys.executable, str(script), f"unix:{daemon.run_dir}/{names.GRPC_SOCKET}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        **dict.fromkeys(names.SERVICES, str(daemon.mountpoint)),
        "first": "True",
        "again": "ALREADY_EXISTS",
        "no id": "INVALID_ARGUMENT",
        "path as id": "INVALID_ARGUMENT",
        "no pid": "INVALID_ARGUMENT",
        "dead pid": "NOT_FOUND",
        "unknown": "NOT_FOUND",
        "no time": "INVALID_ARGUMENT",
        "gone": "True",
        "gone again": "NOT_FOUND",
    }


def test_sockets_are_roots_alone(daemon: OwnDaemon) -> None:
    """Directory 0700, sockets 0600; and where that was undone, another user is still turned away."""
    assert stat.S_IMODE(daemon.run_dir.stat().st_mode) == 0o700
    sockets = [daemon.run_dir / name for name in (names.GRPC_SOCKET, names.CONTROL_SOCKET, names.METRICS_SOCKET)]
    assert {stat.S_IMODE(path.stat().st_mode) for path in sockets} == {0o600}
    for path in (daemon.run_dir, *daemon.run_dir.parents[:3], *sockets):
        path.chmod(0o777)
    script = (
        "import os, socket, sys; os.setresuid(65534, 65534, 65534); "
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout(20); s.connect(sys.argv[1]); "
        "sys.exit(0 if s.recv(1) == b'' else 1)"
    )
    argv = ["/usr/bin/python3", "-c", script, str(daemon.run_dir / names.CONTROL_SOCKET)]
    assert subprocess.run(argv, timeout=60, env={"PATH": os.defpath}).returncode == 0


def test_metrics_are_open_metrics(daemon: OwnDaemon) -> None:
    """HTTP on the socket: every family has its type, and the text ends as the format wants."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(daemon.run_dir / names.METRICS_SOCKET))
        link.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while part := link.recv(65536):
            answer += part
    head, _, body = answer.decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK")
    assert "# TYPE sysvisor_fs_containers gauge\n" in body
    assert "\nsysvisor_fs_containers 0\n" in body
    assert body.endswith("# EOF\n")


def test_control_socket_refuses_nonsense(daemon: OwnDaemon) -> None:
    """What is no request, an unknown container and a path that leads out get an error, and the daemon lives on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.settimeout(20)
        link.connect(str(daemon.run_dir / names.CONTROL_SOCKET))
        for packet in (b"\xff", b"[]", b'{"op": "trees", "id": "x", "paths": ["proc"]}', b'{"op": "trees"}'):
            link.send(packet)
            assert "error" in json.loads(link.recv(65536))
        link.send(b'{"op": "settle", "id": "x"}')
        assert json.loads(link.recv(65536)) == {"ok": True, "gone": True}

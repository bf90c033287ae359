"""The gRPC contract of sysvisor-fs as other programs meet it, and who may: names, status codes, sockets."""

import json
import os
import pathlib
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from sysvisor_runc.contract import names
from tests.support.fs_own import PROGRAM, OwnDaemon
from tests.support.runtime import SOURCE, wait_until

# Connects as nobody to sockets of the kinds that there are, and to a port; the server speaks first where it is gRPC.
ANOTHER_USER = """
import os, socket, sys
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
kinds = [(socket.AF_UNIX, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_STREAM)]
for (family, kind), where in zip([*kinds, (socket.AF_INET, socket.SOCK_STREAM)], sys.argv[1:]):
    with socket.socket(family, kind) as one:
        one.settimeout(30)
        try:
            one.connect(where if family == socket.AF_UNIX else ("127.0.0.1", int(where)))
            print("refused" if one.recv(1) == b"" else "served")
        except ConnectionResetError:
            print("refused")
"""


@pytest.fixture
def port() -> int:
    """A TCP port of the loopback interface that nobody uses."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        number: int = one.getsockname()[1]
        return number


@pytest.fixture
def daemon(tmp_path: pathlib.Path, port: int) -> Iterator[OwnDaemon]:
    """A running daemon, over TCP as well."""
    daemon = OwnDaemon(tmp_path)
    with open(tmp_path / "log", "wb") as log:
        argv = [str(PROGRAM), f"--run-dir={daemon.run_dir}", f"--mountpoint={daemon.mountpoint}", f"--tcp={port}"]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    wait_until(lambda: daemon.command("status").returncode == 0, 60, "a daemon")
    yield daemon
    daemon.stop()
    process.wait(30)


def client(address: str, what: str) -> Any:
    """What another program gets to know."""
    argv = [sys.executable, str(SOURCE / "tests/support/fs_client.py"), address, what]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_names_and_codes(daemon: OwnDaemon) -> None:
    """All names of the service answer, and each failure has the status code that the contract gives it."""
    assert client(f"unix:{daemon.run_dir}/{names.GRPC_SOCKET}", "codes") == {
        **dict.fromkeys(names.SERVICES, str(daemon.mountpoint)),
        "first": "True",
        "again": "ALREADY_EXISTS",
        "high ids": "True",
        "high ids are": [[3_000_000_000, 65536], [4_000_000_000, 65536]],
        "known": "ALREADY_EXISTS",
        "ids beyond": "INVALID_ARGUMENT",
        "no id": "INVALID_ARGUMENT",
        "path as id": "INVALID_ARGUMENT",
        "no pid": "INVALID_ARGUMENT",
        "dead pid": "NOT_FOUND",
        "unknown": "NOT_FOUND",
        "no time": "INVALID_ARGUMENT",
        "gone": "True",
        "gone again": "NOT_FOUND",
    }


def test_health_and_reflection_over_tcp(daemon: OwnDaemon, port: int) -> None:
    """Where TCP was asked for, on loopback alone: all names are well, no other one is, and the contract is told."""
    addresses = listening(port)
    assert addresses == ["0100007F"], addresses
    told = client(f"127.0.0.1:{port}", "standard")
    well = dict.fromkeys(("", *names.SERVICES), "SERVING")
    assert told["health"] == {**well, "nosuch": "NOT_FOUND"}
    assert told["watched"] == 1
    standard = ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"]
    assert told["services"] == sorted([*names.SERVICES, *standard])
    calls = [f"Container{what}" for what in ("PreRegistration", "Registration", "Update", "Unregistration")]
    assert told["methods"] == {name: ["GetMountpoint", *calls] for name in names.SERVICES}
    wanted = "Id InitPid Hostname Ctime UidFirst UidSize GidFirst GidSize ProcRoPaths ProcMaskPaths Netns"
    assert told["fields"] == {name: number for number, name in enumerate(wanted.split(), 1)}


def listening(port: int) -> list[str]:
    """The addresses, as /proc/net/tcp and tcp6 spell them, on which somebody listens at a port."""
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in pathlib.Path(f"/proc/net/{name}").read_text().split("\n")
    ]
    ends = [fields[1].split(":") for fields in lines if len(fields) > 3 and fields[3] == "0A"]
    return [address for address, number in ends if int(number, 16) == port]


def test_sockets_are_roots_alone(daemon: OwnDaemon, port: int) -> None:
    """Directory 0700, sockets 0600; and where that was undone, or over TCP, another user is still turned away."""
    assert stat.S_IMODE(daemon.run_dir.stat().st_mode) == 0o700
    sockets = [daemon.run_dir / name for name in (names.GRPC_SOCKET, names.CONTROL_SOCKET, names.METRICS_SOCKET)]
    assert {stat.S_IMODE(path.stat().st_mode) for path in sockets} == {0o600}
    for path in (daemon.run_dir, *daemon.run_dir.parents[:3], *sockets):
        path.chmod(0o777)
    argv = ["/usr/bin/python3", "-c", ANOTHER_USER, *map(str, sockets), str(port)]
    done = subprocess.run(argv, timeout=100, env={"PATH": os.defpath}, capture_output=True, text=True)
    assert done.stdout.split() == ["refused"] * 4, done
    # Nor is anything of it kept: root gets in behind them.
    assert daemon.status()["containers"] == []


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


def test_commands_tell_what_is_wrong(daemon: OwnDaemon, tmp_path: pathlib.Path) -> None:
    """One line each, and no traceback: nobody there, no room to write, nobody who reads, a name too long."""

    def says(script: str, run_dir: pathlib.Path = daemon.run_dir) -> tuple[int, str]:
        argv = ["/bin/bash", "-c", f"set -o pipefail; {script}", str(PROGRAM), f"--run-dir={run_dir}"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=100)
        return done.returncode, done.stderr

    ask = '"$0" "$1" status'
    assert says(f"{ask} >/dev/null") == (0, "")
    assert says(f"{ask} | read -r pid") == (0, "")
    assert says(f"{ask} --json > >(exit)") in ((141, ""), (0, ""))
    assert says(f"{ask} >/dev/full") == (1, "sysvisor-fs: write to standard output: no space left on device\n")
    assert says(f"{ask} >&-") == (1, "sysvisor-fs: write to standard output: bad file descriptor\n")
    assert says('"$0" --help >/dev/full')[0] == 1
    code, said = says(ask, tmp_path / "none")
    assert code == 1
    assert said.startswith(f"sysvisor-fs: no sysvisor-fs serves '{tmp_path}/none'\nhint: ")
    code, said = says(ask, tmp_path / ("x" * 100))
    assert code == 1
    assert "expected a path of at most" in said
    code, said = says('"$0" "$1" statsu')
    assert code == 1
    assert said == "sysvisor-fs: unknown command 'statsu'\nhint: sysvisor-fs --help lists them\n"

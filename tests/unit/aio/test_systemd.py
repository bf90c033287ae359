"""The connection to systemd, where its messages come in pieces: what systemd itself does only now and then."""

import pathlib
import socket
import threading

import pytest
from jeepney import DBusAddress, Message, Parser, new_method_return, new_signal

from sysvisor_runc.aio import systemd

MANAGER = DBusAddress("/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager")
JOB = "/org/freedesktop/systemd1/job/7"
ANSWER = b"DATA\r\nOK 0123456789abcdef0123456789abcdef\r\n"


def serve(server: socket.socket, cut: int) -> None:
    """Answer to one connection and its first call; of a signal the first `cut` bytes come with the greeting."""
    signal = new_signal(MANAGER, "JobRemoved", "uoss", (7, JOB, "x.scope", "done")).serialise(serial=1)
    link, _ = server.accept()
    with link:
        greeting = b""
        while not greeting.endswith(b"BEGIN\r\n"):
            greeting += link.recv(100)
        link.sendall(ANSWER + signal[:cut])
        # Once it calls, it has read that far.
        asked = receive(link)
        link.sendall(signal[cut:])
        link.sendall(new_method_return(asked, "v", (("s", "/user.slice"),)).serialise(serial=2))
        link.recv(100)


def receive(link: socket.socket) -> Message:
    parser = Parser()
    while (message := parser.get_next_message()) is None:
        parser.add_data(link.recv(4096))
    return message


@pytest.mark.parametrize("cut", [0, 1, 20, 100, 1000])
def test_signals_may_come_with_the_greeting(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    """What is read behind the greeting is the beginning of the first message, or all of it."""
    (tmp_path / "systemd").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "systemd/private"))
        server.listen()
        answering = threading.Thread(target=serve, args=(server, cut))
        answering.start()
        manager = systemd.connect(user=True)
        assert manager.control_group() == "/user.slice"
        assert manager._removed == {JOB: "done"}
        manager.close()
        answering.join(30)

"""A service manager's end of sd_notify(3), for what must be seen message by message."""

import os
import pathlib
import shutil
import socket
import subprocess

import pytest


class Manager:
    """A socket like systemd's; use it with `with`.

    Attributes: `address`, for $NOTIFY_SOCKET.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.settimeout(30)

    def receive(self) -> tuple[str, list[int]]:
        """The next message and the descriptors that came with it, which are the caller's."""
        data, fds, flags, _ = socket.recv_fds(self._socket, 1 << 16, 253)
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
        return data.decode(), list(fds)

    def pending(self) -> list[str]:
        """All messages that are there already; their descriptors are closed."""
        found = []
        self._socket.setblocking(False)
        try:
            while True:
                text, fds = self.receive()
                found.append(text)
                for fd in fds:
                    os.close(fd)
        except BlockingIOError:
            self._socket.settimeout(30)
        return found

    def until(self, line: str) -> list[str]:
        """The lines received up to the first message that has `line`, with it; barriers are let go."""
        found: list[str] = []
        while line not in found:
            text, fds = self.receive()
            found += text.splitlines()
            for fd in fds:
                os.close(fd)
        return found

    def __enter__(self) -> "Manager":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def compile_say(directory: pathlib.Path) -> pathlib.Path:
    """`programs/say.c`, compiled for any root file system."""
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler; to force it: apt-get install gcc libc6-dev")
    source = pathlib.Path(__file__).with_name("programs") / "say.c"
    subprocess.run(["gcc", "-O1", "-static", "-o", directory / "say", source], check=True)
    return directory / "say"

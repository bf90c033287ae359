"""A small tree for tests of sysvisor-fs itself: files whose right content is known, and files that misbehave."""

import errno
import os
import socket
import subprocess
import sys
import time

from sysvisor_fs.node import Branch, Caller, Container, Directory, File, Link, Node

LONG = b"".join(b"%07d\n" % number for number in range(65536))


class Identity(File):
    """Says whose it is, so that a reader sees another container's answer at once."""

    valid = 3600.0

    def read(self, container: Container, caller: Caller) -> bytes:
        return f"{container.id} {container.root_uid}\n".encode()


class Long(File):
    """Half a megabyte: fetched in pieces."""

    def read(self, container: Container, caller: Caller) -> bytes:
        return LONG


class Value(File):
    """A number that the container keeps."""

    mode = 0o644

    def __init__(self, key: str, fast: bool) -> None:
        self.key = key
        self.fast = fast

    def read(self, container: Container, caller: Caller) -> bytes:
        return container.values.get(self.key, b"0") + b"\n"

    def write(self, container: Container, caller: Caller, data: bytes) -> None:
        if not data.strip().isdigit():
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        container.values[self.key] = data.strip()


class Turns(File):
    """Counts how often it has been read, by whomever."""

    def __init__(self) -> None:
        self.count = 0

    def read(self, container: Container, caller: Caller) -> bytes:
        self.count += 1
        return b"%d\n" % self.count


class Sleepy(File):
    """Waits for as many seconds as its name says."""

    fast = False

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def read(self, container: Container, caller: Caller) -> bytes:
        time.sleep(self.seconds)
        return b"slept\n"


class Stuck(File):
    """Holds up the FUSE thread itself, until its file says that it may go on."""

    def read(self, container: Container, caller: Caller) -> bytes:
        while not os.path.exists(os.environ["SYSVISOR_FS_TEST_UNSTICK"]):
            time.sleep(0.05)
        return b"unstuck\n"


class Broken(File):
    """Has a defect."""

    def read(self, container: Container, caller: Caller) -> bytes:
        raise ZeroDivisionError("a defect of this file")


class Asker(File):
    """Tells who asks."""

    def read(self, container: Container, caller: Caller) -> bytes:
        return f"{caller.uid} {caller.gid} {caller.pid}\n".encode()


_FIRE = """
import socket, sys, time
time.sleep(float(sys.argv[1]))
socket.socket(fileno=int(sys.argv[2])).send(b"!", socket.MSG_OOB)
"""


class Pressure(File):
    """Its trigger fires as many milliseconds after it was written as it was told."""

    mode = 0o644
    pollable = True

    def read(self, container: Container, caller: Caller) -> bytes:
        return b"some avg10=0.00\n"

    def trigger(self, container: Container, caller: Caller, data: bytes) -> int:
        # Out-of-band data on a socket is what epoll calls EPOLLPRI; who sends it does not end with this process.
        with socket.create_server(("127.0.0.1", 0)) as server:
            here = socket.create_connection(server.getsockname())
            there, _ = server.accept()
        subprocess.Popen([sys.executable, "-c", _FIRE, str(int(data) / 1000), str(there.fileno())],
                         pass_fds=[there.fileno()], stdin=subprocess.DEVNULL)  # fmt: skip
        there.close()
        return here.detach()


class Numbered(Directory):
    """A hundred files, 0 to 99, made when they are asked for; each says its number."""

    def names(self, container: Container, caller: Caller) -> list[tuple[str, int]]:
        return [(str(number), 8) for number in range(100)]

    def lookup(self, container: Container, caller: Caller, name: str) -> Node:
        if not name.isdigit() or int(name) >= 100 or str(int(name)) != name:
            return super().lookup(container, caller, name)
        return Constant(name.encode())


class Constant(File):
    """Always the same."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self, container: Container, caller: Caller) -> bytes:
        return self.content


class Pointer(Link):
    """A link to the identity."""

    def target(self, container: Container, caller: Caller) -> bytes:
        return b"identity"


def build_tree() -> Directory:
    """The tree."""
    return Branch({
        "identity": Identity(), "long": Long(), "empty": Constant(b""), "asker": Asker(), "broken": Broken(),
        "value": Value("value", fast=True), "slow-value": Value("slow-value", fast=False), "sleep1": Sleepy(0.3),
        "sleep60": Sleepy(60.0), "stuck": Stuck(), "pressure": Pressure(), "link": Pointer(), "turns": Turns(),
        "deep": Branch({"er": Branch({"numbered": Numbered()})}),
    })  # fmt: skip

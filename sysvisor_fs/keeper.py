"""The daemon's side of the holder: find or start it, enter its mount namespace, give it things and get them back."""

from __future__ import annotations

import os
import socket
import threading

from sysvisor_fs import packets
from sysvisor_runc.errors import SysvisorError, reason
from sysvisor_runc.kernel.namespaces import CLONE_NEWNS, setns

_START = 5.0  # seconds that the holder may take to come up


class Keeper:
    """A conversation with the holder. May be used by any thread: every exchange is short and answered at once."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """What has something to read once the holder is gone."""
        return self._sock.fileno()

    def is_gone(self) -> bool:
        """Whether the holder has hung up: it was killed."""
        with self._lock:
            try:
                return not self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError:
                return True

    def _ask(self, message: packets.Message, descriptors: list[int] | None = None) -> list[int]:
        with self._lock:
            packets.send(self._sock, message, descriptors)
            answer, received = packets.receive(self._sock)
        if answer.get("ok") is not True:
            raise SysvisorError(f"holder: {message['op']}: {answer.get('error', 'refused')}")
        return received

    def put(self, name: str, *descriptors: int) -> None:
        """Keep descriptors under a name, in place of what was kept there."""
        self._ask({"op": "put", "name": name}, list(descriptors))

    def drop(self, name: str) -> None:
        """Keep them no longer."""
        self._ask({"op": "drop", "name": name})

    def all(self) -> dict[str, int]:
        """All that is kept, a new descriptor each."""
        found: dict[str, int] = {}
        with self._lock:
            packets.send(self._sock, {"op": "all"})
            while True:
                message, descriptors = packets.receive(self._sock)
                names = message.get("names")
                if not isinstance(names, list) or not names:
                    return found
                found.update(zip((str(name) for name in names), descriptors, strict=True))

    def serve(self, argv: list[str]) -> None:
        """Be the daemon that the holder watches, and be in its mount namespace. While there is one thread.

        `argv` is how another is started should this one die; empty where somebody else does that.
        """
        (namespace,) = self._ask({"op": "serve", "argv": list(argv)})
        try:
            setns(namespace, CLONE_NEWNS, operand="the mount namespace of the holder")
        finally:
            os.close(namespace)

    def ready(self) -> None:
        """Requests are being answered."""
        self._ask({"op": "ready"})

    def bye(self) -> None:
        """We end on purpose."""
        self._ask({"op": "bye"})

    def quit(self) -> None:
        """The holder shall end too, and drop everything."""
        self._ask({"op": "quit"})
        self._sock.close()


def connect(run_dir: str) -> Keeper | None:
    """The holder that runs, or None."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        sock.connect(f"{run_dir}/holder.sock")
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    return Keeper(sock)


def start(run_dir: str, argv: list[str], log_path: str) -> Keeper:
    """A new holder, started with `argv` and the number of a descriptor in which it says that it is there.

    Raises:
        SysvisorError: it does not come up.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    out = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for fd, number in ((null, 0), (null, 1), (out, 2), (writer, 3))]
        os.posix_spawn(argv[0], [*argv, "3"], dict(os.environ), file_actions=actions, setsid=True, setsigmask=[])
    except OSError as error:
        raise SysvisorError(f"holder: {argv[0]}: {reason(error)}")
    finally:
        for fd in (writer, out, null):
            os.close(fd)
    try:
        came = _comes(reader)
    finally:
        os.close(reader)
    keeper = connect(run_dir) if came else None
    if keeper is None:
        raise SysvisorError("the holder process does not start", hint=f"{log_path} says why")
    return keeper


def _comes(reader: int) -> bool:
    import select

    ready, _, _ = select.select([reader], [], [], _START)
    return bool(ready) and os.read(reader, 1) == b"+"

"""A command on a pseudo-terminal of its own, as a shell would start it, and a listener for terminals sent away."""

import contextlib
import fcntl
import os
import pathlib
import pty
import select
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from typing import Any

import pexpect
from pexpect import fdpexpect

from tests.support.runtime import Runtime

TIMEOUT = 20
LFLAG = 3


class Terminal:
    """A pseudo-terminal with one command, which has it as its controlling terminal.

    Attributes:
        screen: the outer end, with pexpect's `expect` and `send`.
        process: the command; its stderr goes to a file, so that the terminal shows the container only.
    """

    def __init__(self, directory: pathlib.Path, argv: list[str], size: tuple[int, int], **popen: Any) -> None:
        self.master, self.slave = pty.openpty()
        self.stderr = directory / f"stderr-{os.path.basename(os.ttyname(self.slave))}"
        self.before = termios.tcgetattr(self.slave)
        self.resize(*size)
        self.screen = fdpexpect.fdspawn(self.master, timeout=TIMEOUT)
        with open(self.stderr, "wb") as stderr:
            defaults: dict[str, Any] = {"stdin": self.slave, "stdout": self.slave, "stderr": stderr}
            self.process = subprocess.Popen(
                argv,
                start_new_session=True,
                preexec_fn=self._make_controlling,  # noqa: PLW1509  # no thread runs while a test starts a command
                **(defaults | popen),
            )

    def _make_controlling(self) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)

    def resize(self, rows: int, columns: int) -> None:
        """Change the size; the foreground processes get SIGWINCH."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def send(self, text: str) -> None:
        """Type."""
        self.screen.send(text)

    def line(self, text: str) -> None:
        """Type a line."""
        self.screen.send(text + "\r")

    def expect(self, pattern: str) -> str:
        """Wait for the pattern in the output, and return what it matched."""
        deadline = time.monotonic() + TIMEOUT
        while self.screen.expect([pattern, pexpect.TIMEOUT], timeout=0.2):
            ended = self.process.poll()
            assert ended is None, f"{pattern!r} never came, ended with {ended}: {self._said()}"
            assert time.monotonic() < deadline, f"{pattern!r} did not come: {self._said()}"
        matched: bytes = self.screen.match.group(0)
        return matched.decode()

    def _said(self) -> str:
        return f"{self.screen.before!r}, stderr: {self.errors()}"

    def prompt(self) -> None:
        """Wait for the shell's prompt."""
        self.expect("[#$] ")

    def read(self) -> bytes:
        """Some output; blocks until there is some."""
        return os.read(self.master, 65536)

    def wait(self) -> int:
        """The exit code of the command, whose output is read meanwhile."""
        pidfd = os.pidfd_open(self.process.pid)
        try:
            self._read_until(pidfd)
        finally:
            os.close(pidfd)
        return self.process.wait(TIMEOUT)

    def _read_until(self, pidfd: int) -> None:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(self.master, select.POLLIN)
        while True:
            ready = dict(poll.poll(TIMEOUT * 1000))
            assert ready, f"no end within {TIMEOUT} s: {self.errors()}"
            if self.master in ready:
                self.read()
            elif pidfd in ready:
                return

    def is_raw(self) -> bool:
        """Whether lines are not edited and keys make no signals just now."""
        return not termios.tcgetattr(self.slave)[LFLAG] & (termios.ICANON | termios.ISIG | termios.ECHO)

    def is_restored(self) -> bool:
        """Whether the terminal is as it was before the command."""
        return bool(termios.tcgetattr(self.slave) == self.before)

    def errors(self) -> str:
        """What the command wrote to stderr."""
        return self.stderr.read_text()

    def hang_up(self) -> None:
        """Close both ends, as when a window is closed or a connection lost."""
        for fd in (self.master, self.slave):
            if fd >= 0:
                os.close(fd)
        self.master = self.slave = -1

    def close(self) -> None:
        """End the command if it still runs, and close both ends."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(TIMEOUT)
        self.hang_up()


@contextlib.contextmanager
def on_terminal(
    runtime: Runtime,
    *args: str | os.PathLike[str],
    size: tuple[int, int] = (33, 77),
    loop: str = "asyncio",
    **popen: Any,
) -> Iterator[Terminal]:
    """Run a command of the runtime on a terminal; the loop other than asyncio needs the interpreter that has it."""
    argv = runtime.argv(*args)
    if loop != "asyncio":
        argv = [sys.executable, "-SI", *argv]
    environment = {**os.environ, "SYSVISOR_RUNC_LOOP": loop, "TERM": "xterm"}
    terminal = Terminal(runtime.directory, argv, size, env=environment, **popen)
    try:
        yield terminal
    finally:
        terminal.close()


class ConsoleSocket:
    """A listener as `--console-socket` wants it; `path` is where."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.path = directory / "console.sock"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen()
        self._socket.settimeout(TIMEOUT)

    def receive(self) -> tuple[bytes, int]:
        """One connection's one message: its data and its one descriptor; nothing else may come."""
        connection, _ = self._socket.accept()
        with connection:
            data, ancillary, flags, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4 * 8), socket.MSG_CMSG_CLOEXEC)
            assert connection.recv(1) == b""
        assert len(ancillary) == 1, ancillary
        level, kind, raw = ancillary[0]
        assert (level, kind, len(raw)) == (socket.SOL_SOCKET, socket.SCM_RIGHTS, 4)
        assert not flags & socket.MSG_CTRUNC
        return data, struct.unpack("i", raw)[0]

    def output(self) -> tuple[bytes, str]:
        """Receive a terminal and read it to its end: the message's data, and all that was printed."""
        data, master = self.receive()
        printed = b""
        try:
            while part := os.read(master, 65536):
                printed += part
        except OSError:  # EIO: the last process in there has closed it
            pass
        finally:
            os.close(master)
        return data, printed.decode()

    def close(self) -> None:
        self._socket.close()

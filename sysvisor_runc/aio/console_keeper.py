"""The terminal of a detached container: what it prints goes to the log and to who is attached; nobody holds it up."""

from __future__ import annotations

import os

from sysvisor_runc.aio.console import hold_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.aio.control import Connection
    from sysvisor_runc.aio.loop import AbstractEventLoop
    from sysvisor_runc.state.consolelog import ConsoleLog

_CHUNK = 1 << 16
# At one turn: another terminal shall have its turn, too.
_AT_ONCE = 4
# What a program can have left behind in the kernel when it ends, and some more.
_LEFT_BEHIND = 1 << 20
# Of somebody attached who does not read: the output goes by.
_BACKLOG_MAX = 1 << 20


class ConsoleKeeper:
    """Keeps one terminal.

    Attributes:
        master: its master, non-blocking; ours.
        log: what has been written to it.
    """

    __slots__ = ("_attached", "_loop", "_peer", "log", "master")

    def __init__(self, loop: AbstractEventLoop, master: int, log: ConsoleLog) -> None:
        """Take over `master`, which is read from here on, and `log`."""
        self._loop = loop
        self.master = master
        self.log = log
        self._attached: dict[Connection, None] = {}
        os.set_blocking(master, False)
        self._peer = hold_open(master)
        loop.add_reader(master, self._readable)

    @property
    def attached(self) -> int:
        """How many are attached."""
        return len(self._attached)

    def attach(self, connection: Connection, closed: Callable[[], None] | None = None) -> None:
        """Send the output to `connection` as well, for as long as that is open."""

        def gone() -> None:
            self._attached.pop(connection, None)
            if closed is not None:
                closed()

        self._attached[connection] = None
        connection.closed = gone

    def end(self) -> None:
        """The program has ended: take what is left of its output, and send everybody away once they have read it."""
        if self.master < 0:
            return
        left = _LEFT_BEHIND
        while left > 0 and (data := self._read()):
            left -= len(data)
        for connection in [*self._attached]:
            connection.finish()
        self.close()

    def close(self) -> None:
        """Leave the terminal, which lives on if somebody else keeps it."""
        if self.master < 0:
            return
        self._loop.remove_reader(self.master)
        for fd in (self.master, self._peer):
            if fd >= 0:
                os.close(fd)
        self.master = self._peer = -1
        self.log.close()

    def _readable(self) -> None:
        for _ in range(_AT_ONCE):
            if not self._read():
                return

    def _read(self) -> bytes:
        try:
            data = os.read(self.master, _CHUNK)
        except BlockingIOError:
            return b""
        except OSError:  # EIO: hung up, on a kernel where we could not hold it open
            data = b""
        if not data:
            self._loop.remove_reader(self.master)
            return b""
        self.log.write(data)
        for connection in [*self._attached]:
            if connection.backlog < _BACKLOG_MAX:
                connection.send_bytes(data)
        return data

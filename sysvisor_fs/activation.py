"""The daemon's side of the gateway: starts it for the first gRPC connection, and hands all of them over to it.

The gateway (`gateway`) is a process of its own, so that gRPC is not loaded where nobody speaks it, and never has the
interpreter's lock while a reader waits. Nothing is lost with it: who was connected connects again, and has another one
started.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from typing import TYPE_CHECKING

from sysvisor_fs import packets
from sysvisor_fs.door import Door
from sysvisor_fs.rundir import program
from sysvisor_runc import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_fs.options import Options

_GRACE = 2.0  # seconds for the calls that are under way when the daemon ends
_STEADY = 10.0  # seconds after which its end is not one more of a row
_LONGEST_DELAY = 5.0  # seconds before another one is started
_MANAGER = ("LISTEN_", "NOTIFY_", "WATCHDOG_")  # what systemd says to the daemon alone
_RESET = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Gateway:
    """The process, while there is one.

    Attributes:
        pid: 0 while there is none.
        starts: how many there have been.
    """

    def __init__(
        self, options: Options, listeners: list[socket.socket], serve: Callable[[socket.socket], None]
    ) -> None:
        """`serve` answers what comes over a connection, as the control socket does. On the running loop."""
        self.pid = 0
        self.starts = 0
        self._argv = [*program(), *options.argv(), "gateway"]
        self._serve = serve
        self._pidfd = -1
        self._handing: socket.socket | None = None
        self._began = 0.0
        self._failures = 0  # that came one soon after the other
        self._opening: asyncio.TimerHandle | None = None
        self._gone = asyncio.Event()
        self._gone.set()
        self._door = Door(listeners, self._lead)

    @property
    def refused(self) -> int:
        """How many peers were turned away."""
        return self._door.refused

    async def close(self) -> None:
        """Take no more connections, and have the process end once the calls that are under way have."""
        self._door.close()
        if self._opening is not None:
            self._opening.cancel()
        self._stop_handing()
        try:
            await asyncio.wait_for(self._gone.wait(), _GRACE)
        except TimeoutError:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            await self._gone.wait()

    def _lead(self, connection: socket.socket) -> None:
        """Hand a connection to the gateway."""
        with connection:
            try:
                try:
                    self._hand(connection)
                except (BrokenPipeError, ConnectionResetError):  # it has ended just now, or is about to
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                    self._ended()
                    self._hand(connection)
            except OSError as error:  # there can be none, or it hangs
                log.warning(f"a gRPC connection cannot be handed to the gateway: {error}")

    def _hand(self, connection: socket.socket) -> None:
        if self._handing is None:
            self._start()
        assert self._handing is not None
        packets.send(self._handing, {}, [connection.fileno()])

    def _start(self) -> None:
        ours, theirs = _pairs()
        try:
            actions = [(os.POSIX_SPAWN_DUP2, one.fileno(), one.fileno()) for one in theirs]  # inherited by this one
            argv = [*self._argv, *(str(one.fileno()) for one in theirs)]
            environment = {name: value for name, value in os.environ.items() if not name.startswith(_MANAGER)}
            self.pid = os.posix_spawn(
                argv[0], argv, environment, file_actions=actions, setsid=True, setsigmask=[], setsigdef=_RESET
            )
        except OSError:
            for one in ours:
                one.close()
            raise
        finally:
            for one in theirs:
                one.close()
        self._pidfd = os.pidfd_open(self.pid)
        self._handing, calls = ours
        self._handing.setblocking(False)
        self._serve(calls)
        self._began = time.monotonic()
        self._gone.clear()
        self.starts += 1
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)
        log.debug(f"the gRPC gateway is process {self.pid}")

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        _, status = os.waitpid(self.pid, 0)
        expected = self._handing is None
        self._stop_handing()
        pid, self.pid = self.pid, 0
        self._gone.set()
        if not expected:
            self._failures = 0 if time.monotonic() - self._began > _STEADY else self._failures + 1
            code = os.waitstatus_to_exitcode(status)
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            log.warning(f"the gRPC gateway, process {pid}, has ended {how}; the next connection starts another one")
            self._hold_back()

    def _hold_back(self) -> None:
        """Have connections wait, the longer the more of its kind have ended."""
        if self._opening is not None:
            self._opening.cancel()
        if self._failures:
            self._door.shut()
            delay = min(0.1 * 2 ** (self._failures - 1), _LONGEST_DELAY)
            self._opening = asyncio.get_running_loop().call_later(delay, self._door.open)

    def _stop_handing(self) -> None:
        if self._handing is not None:
            self._handing.close()
            self._handing = None


def _pairs() -> tuple[list[socket.socket], list[socket.socket]]:
    """Two connections, one for handing over and one for calls: our ends, and the gateway's."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) for _ in range(2)]
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]

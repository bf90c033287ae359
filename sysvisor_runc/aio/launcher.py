"""The supervisor's link to its launcher, started when it is first needed. `launch.launcher` is the other end."""

from __future__ import annotations

import _socket
import os

from sysvisor_runc import log
from sysvisor_runc.jsonlight import dumps, loads
from sysvisor_runc.launch.supervised import program, spawn
from sysvisor_runc.launch.tell import rights

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sysvisor_runc.aio.loop import AbstractEventLoop

_MESSAGE_MAX = 1 << 16


class LauncherLink:
    """Asks the launcher.

    Attributes:
        finished: called with an id and None once the container has been started, "" where that was not to be done any
            more, or what went wrong.
        lost: called when the launcher has gone; what it kept is to be given to the next one.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        root: str,
        *,
        respawn: bool,
        finished: Callable[[str, str | None], None],
        lost: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._root = root
        self._respawn = respawn
        self._link: _socket.socket | None = None
        self._pending: set[str] = set()
        self.pid = 0
        self.finished = finished
        self.lost = lost

    def launch(self, container_id: str, pid: int, start: int) -> None:
        """Start a container again whose init, `pid` that began at `start`, has ended."""
        self._pending.add(container_id)
        self._send({"do": "launch", "id": container_id, "pid": pid, "start": start})

    def keep(self, container_id: str, pidfd: int, master: int) -> None:
        """Have a terminal kept, should we crash."""
        self._send({"do": "keep", "id": container_id}, (pidfd, master))

    def drop(self, container_id: str) -> None:
        """Have it kept no more."""
        if self._link is not None:
            self._send({"do": "drop", "id": container_id})

    def close(self) -> None:
        """End in order: the launcher goes as well, unless it keeps terminals.

        The link is closed with us: who keeps terminals looks for our successor then, and would find us before.
        """
        if self._link is None:
            return
        self._send({"do": "bye"})
        if self._link is not None:
            self._loop.remove_reader(self._link.fileno())

    def _send(self, message: dict[str, object], fds: Sequence[int] = ()) -> None:
        try:
            if self._link is None:
                self._start()
            link = self._link
            if link is not None:
                link.sendmsg([dumps(message).encode("utf-8", "surrogateescape")], rights(fds), _socket.MSG_NOSIGNAL)
        except OSError as error:
            log.error(f"launcher: {error}")
            self._failed(str(error))

    def _start(self) -> None:
        link, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        try:
            role = "respawn" if self._respawn else "keep"
            argv = [*program(), "--root", self._root, "supervisor", "--launcher", role]
            self.pid = spawn(argv, [other.fileno()])
        except BaseException:
            link.close()
            raise
        finally:
            other.close()
        # Messages are small: a launcher whose socket is full has been stopped, and its starts fail for now.
        link.setblocking(False)
        self._link = link
        self._loop.add_reader(link.fileno(), self._readable)

    def _readable(self) -> None:
        link = self._link
        if link is None:
            return
        try:
            data = link.recv(_MESSAGE_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close()
            self._failed("the launcher was killed")
            self.lost()
            return
        answer = loads(data)
        if isinstance(answer, dict):
            self._answered(answer)

    def _answered(self, answer: dict[str, object]) -> None:
        container_id = str(answer.get("id"))
        self._pending.discard(container_id)
        if "error" in answer:
            self.finished(container_id, str(answer["error"]))
        else:
            self.finished(container_id, None if answer.get("done") else "")

    def _failed(self, why: str) -> None:
        pending, self._pending = self._pending, set()
        for container_id in pending:
            self._loop.call_soon(self.finished, container_id, why)

    def _close(self) -> None:
        if self._link is not None:
            self._loop.remove_reader(self._link.fileno())
            self._link.close()
            self._link = None
        if self.pid:
            try:
                os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                pass
            self.pid = 0

"""What a daemon on the loop and its service manager tell each other: readiness, watchdog, descriptors kept for us.

    manager = ServiceManager.take(loop)        # clears the variables: nobody whom we start shall have them
    for name, fd in manager.inherited: …       # sockets, and what an earlier run of us had stored
    manager.ready("2 containers"); manager.watch()
    manager.store("console.web", master); manager.forget("console.web")
    manager.stopping(); await manager.barrier(); manager.close()

Without a manager all of it does nothing. Nothing blocks: what the manager's socket does not take waits in here.
"""

from __future__ import annotations

import os
from collections import deque

from sysvisor_runc.aio.loop import asyncio
from sysvisor_runc.kernel import sd_notify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.aio.loop import AbstractEventLoop

# What waits for the manager at most. It reads as long as it lives; if it does not, nobody misses the oldest.
_WAITING_MAX = 4096
# Of the time after which the manager takes us for dead.
_WATCHDOG_SHARE = 3


class ServiceManager:
    """Our link to the service manager.

    Attributes:
        inherited: (name, descriptor) of each that it handed to us; ours to close, close-on-exec.
        watchdog_usec: how often it wants to hear of us; 0: never.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        address: str = "",
        watchdog_usec: int = 0,
        inherited: list[tuple[str, int]] | None = None,
    ) -> None:
        self.inherited = inherited or []
        self.watchdog_usec = watchdog_usec
        self._loop = loop
        self._link = sd_notify.NotifySocket(address) if address else None
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._watched = -1
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def take(cls, loop: AbstractEventLoop) -> ServiceManager:
        """The manager that this process's environment names, which is cleared of it."""
        taken = cls(loop, sd_notify.address(), sd_notify.watchdog_usec(), sd_notify.listen_fds())
        sd_notify.clear_environment()
        return taken

    @property
    def active(self) -> bool:
        """Whether there is one that listens to us."""
        return self._link is not None

    def ready(self, status: str = "") -> None:
        """We serve: units that wait for us may start."""
        self._tell(sd_notify.text(READY=1, **_status(status)))

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._tell(sd_notify.text(STATUS=text))

    def reloading(self) -> None:
        """We read our configuration anew; `ready` says that it is done (Type=notify-reload wants the time)."""
        import time

        self._tell(sd_notify.text(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000))

    def stopping(self, status: str = "") -> None:
        """We are on our way out."""
        self._tell(sd_notify.text(STOPPING=1, **_status(status)))

    def main_pid(self, pid: int) -> None:
        """The service's main process is another one from now on."""
        self._tell(sd_notify.text(MAINPID=pid))

    def watch(self, alive: Callable[[], bool] | None = None) -> None:
        """Say that we live, in good time, as long as the loop turns and `alive()` holds."""
        if self._link is None or not self.watchdog_usec:
            return
        if alive is None or alive():
            self._tell(sd_notify.text(WATCHDOG=1))
        self._timer = self._loop.call_later(self.watchdog_usec / 1e6 / _WATCHDOG_SHARE, self.watch, alive)

    def store(self, name: str, *fds: int) -> None:
        """Have `fds` kept over our end, for our successor's `inherited`, where they are called `stored_name(name)`."""
        for fd in fds:
            message = sd_notify.text(FDSTORE=1, FDPOLL=0, FDNAME=sd_notify.fd_name(name))
            self._tell(message, (fd,))

    def forget(self, name: str) -> None:
        """Have what is kept under `name` closed."""
        self._tell(sd_notify.text(FDSTOREREMOVE=1, FDNAME=sd_notify.fd_name(name)))

    async def barrier(self, patience: float = 5) -> bool:
        """Wait until the manager has worked off all that we told it; False where it did not in time."""
        if self._link is None:
            return True
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        closed = asyncio.Event()
        try:
            self._tell(sd_notify.text(BARRIER=1), (writer,))
        finally:
            os.close(writer)
        self._loop.add_reader(reader, closed.set)
        try:
            await asyncio.wait_for(closed.wait(), patience)
        except TimeoutError:
            return False
        finally:
            self._loop.remove_reader(reader)
            os.close(reader)
        return True

    def close(self) -> None:
        """Say no more; the descriptors in `inherited` are not touched."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._unwatch()
        self._drop(len(self._waiting))
        if self._link is not None:
            self._link.close()
            self._link = None

    # ---- the queue

    def _tell(self, message: bytes, fds: tuple[int, ...] = ()) -> None:
        if self._link is None:
            return
        # The caller may close his at once.
        self._waiting.append((message, tuple(map(os.dup, fds))))
        self._drop(len(self._waiting) - _WAITING_MAX)
        if self._watched < 0:
            self._flush()

    def _flush(self) -> None:
        self._unwatch()  # first: a link that has to be opened anew gets another descriptor
        link = self._link
        while link is not None and self._waiting:
            try:
                sent = link.send(*self._waiting[0])
            except OSError:
                sent = True  # the manager is gone: there is nobody to tell
            if not sent:
                self._watched = link.fileno()
                self._loop.add_writer(self._watched, self._flush)
                return
            self._drop(1)

    def _unwatch(self) -> None:
        if self._watched >= 0:
            self._loop.remove_writer(self._watched)
            self._watched = -1

    def _drop(self, count: int) -> None:
        for _ in range(count):
            for fd in self._waiting.popleft()[1]:
                os.close(fd)


def stored_name(name: str) -> str:
    """What `inherited` calls a descriptor that was stored as `name`: the same unless it is long or has a colon."""
    return sd_notify.fd_name(name)


def _status(text: str) -> dict[str, str]:
    return {"STATUS": text} if text else {}

"""The supervisor's residence: its lock, socket, signals, log, and when it ends. What it does is `aio.supervisor`'s."""

from __future__ import annotations

import contextlib
import os
import resource
import time

from sysvisor_runc import log
from sysvisor_runc.aio import feed, operations
from sysvisor_runc.aio.control import ControlServer, Refusal
from sysvisor_runc.aio.journal import Journal
from sysvisor_runc.aio.loop import asyncio
from sysvisor_runc.aio.notify import ServiceManager, stored_name
from sysvisor_runc.aio.onlooker import Onlooker
from sysvisor_runc.aio.oom import OomWatch
from sysvisor_runc.aio.signals import SignalSource
from sysvisor_runc.aio.supervisor import Supervisor
from sysvisor_runc.errors import SysvisorError
from sysvisor_runc.kernel.signals import block_all, signalfd
from sysvisor_runc.launch import room, supervised
from sysvisor_runc.launch.tell import DIRECTORY, SOCKET
from sysvisor_runc.state.record import rfc3339nano
from sysvisor_runc.state.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

    from sysvisor_runc.aio.control import Answer, Call, Handler
    from sysvisor_runc.aio.fs import Caller
    from sysvisor_runc.aio.loop import AbstractEventLoop, TimerHandle

LINGER = 2.0
LOG = "supervisor.log"
# What a service manager calls the socket that it listens on for us (FileDescriptorName=).
CONTROL = "control"
_LOG_MAX = 1 << 20
# How often it looks whether its socket and state root are still there.
_LOOK_EVERY = 2.0
_ENDING = (1, 2, 3, 15)
_SIGCHLD = 17
# One in so many descriptors may be for a container that others look after; on cgroup v1 each takes two.
_PER_ONLOOKED = 8


async def reside(
    root: str,
    lock: int,
    listener: _socket.socket,
    linger: float | None,
    before: Callable[[], None],
    *,
    activated: bool,
) -> int:
    """Look after the containers of `root` until told to end, or idle for `linger` seconds (None: for ever).

    `lock` and `listener` are ours, but for the socket's place where a service manager has made it (`activated`).
    `before` is called once everything else is closed and before the lock is given up.
    """
    residence = _Residence(asyncio.get_running_loop(), root, lock, listener, linger, activated=activated)
    try:
        await residence.ended
    finally:
        await residence.close(before)
    return 0


def block_signals() -> int:
    """Block all signals, before there can be a thread, and the descriptor that reads those which mean something."""
    block_all()
    return signalfd([*_ENDING, _SIGCHLD])


def raise_descriptor_limit() -> int:
    """As many descriptors as we may have; how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return soft


def log_to_file(root: str) -> None:
    """Send what we have to say to the log in our directory from here on; put aside when it is long."""
    path = f"{root}/{DIRECTORY}/{LOG}"

    def sink(level: str, message: str) -> None:
        line = f"{rfc3339nano(time.time_ns())} {os.getpid()} {level}: {log.printable(message)}\n"
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(path, flags, 0o600)
            try:
                if os.fstat(fd).st_size > _LOG_MAX:
                    os.rename(path, path + ".1")
                os.write(fd, line.encode("utf-8", "surrogateescape"))
            finally:
                os.close(fd)

    log.listen(sink, "info")


class _Residence:
    """Attributes: `ended` is set once the supervisor is to go."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        root: str,
        lock: int,
        listener: _socket.socket,
        linger: float | None,
        *,
        activated: bool,
    ) -> None:
        self.ended: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._root = root
        self._lock = lock
        self._linger = linger
        self._timer: TimerHandle | None = None
        self._fs_caller: Caller | None = None
        self._look: TimerHandle | None = None
        # The socket's file where it is ours to remove.
        self._file = None if activated else _made(self._path(SOCKET))
        room.forget_wanted(root)
        descriptors = raise_descriptor_limit()
        self._signals = SignalSource(loop, block_signals(), self._signalled)
        self._manager = ServiceManager.take(loop)
        self._journal = Journal(f"{root}/{DIRECTORY}/events")
        self._oom = OomWatch(loop)
        self._supervisor = Supervisor(loop, root, self._journal, self._manager, self._oom, descriptors=descriptors)
        self._supervisor.adopt_all(self._stored_terminals())
        self._onlooker = Onlooker(loop, root, self._journal, self._oom, bound=descriptors // _PER_ONLOOKED)
        self._onlooker.look()
        self._server = ControlServer(loop, listener, self._handlers())
        self._server.changed = self._supervisor.changed = self._changed
        running = len(self._supervisor.containers)
        self._journal.publish("supervisor", "", {"action": "start", "pid": os.getpid(), "containers": running})
        log.info(f"looks after {running} containers of {root}")
        self._said = self._status()
        self._manager.ready(self._said)
        self._manager.watch()
        if linger is None:
            self._supervisor.start_stopped()
        self._directory = _identity(self._path())
        self._look_around()
        self._changed()

    def _path(self, name: str = "") -> str:
        return f"{self._root}/{DIRECTORY}/{name}".removesuffix("/")

    def _status(self) -> str:
        """One line for `systemctl status`."""
        count = len(self._supervisor.containers)
        return f"looks after {count} container{'' if count == 1 else 's'}"

    def _handlers(self) -> dict[str, Handler]:
        own = operations.handlers(self._supervisor, self._end) | feed.handlers(
            self._journal, self._onlooker.started, self._catch_up
        )
        return {**own, "fs": self._fs}

    def _catch_up(self) -> None:
        self._supervisor.catch_up()
        self._onlooker.catch_up()

    async def _fs(self, call: Call) -> Answer:
        """A call of sysvisor-fs for a command; gRPC is loaded for the first one, and its channel stays warm."""
        if self._fs_caller is None:
            from sysvisor_runc.aio.fs import Caller

            self._fs_caller = Caller(told=self._fs_told)
        caller = self._fs_caller
        until = call.request.get("until")
        if isinstance(until, (int, float)) and time.monotonic() > until:
            raise Refusal("too late: the command has gone on without us")
        if call.request.get("call") == "prepare":
            container_id = str(call.request.get("id"))
            call.connection.closed = lambda: caller.abandon(container_id, kept=self._recorded(container_id))
        return await caller.carry_out(call.request)

    def _fs_told(self, container_id: str, data: dict[str, object]) -> None:
        self._journal.publish("fs", container_id, data)

    def _recorded(self, container_id: str) -> bool:
        """Whether its launch has succeeded: it may have gone on without us while we were stopped."""
        store = Store(self._root)
        try:
            with store.open(container_id) as entry:
                return "sysvisorFs" in entry.load()
        except (SysvisorError, OSError):
            return False
        finally:
            store.close()

    def _stored_terminals(self) -> dict[str, int]:
        """The masters that the service manager kept for us, by container id."""
        # The other one is the socket that we listen on.
        stored = [(name, fd) for name, fd in self._manager.inherited if name != CONTROL]
        found: dict[str, int] = {}
        if not stored:
            return found
        names: dict[str, str] = {}
        store = Store(self._root)
        with contextlib.suppress(FileNotFoundError):
            names = {stored_name(f"console.{container_id}"): container_id for container_id in store.ids()}
        store.close()
        for name, fd in stored:
            container_id = names.get(name, "")
            if container_id and container_id not in found:
                found[container_id] = fd
                continue
            os.close(fd)
            if not container_id:  # deleted while nobody looked
                self._manager.forget(name)
        return found

    # ---- when it ends

    def _end(self) -> None:
        """Not at once: who asked for it is answered first."""
        self._loop.call_soon(lambda: None if self.ended.done() else self.ended.set_result(None))

    def _signalled(self, number: int) -> None:
        if number == _SIGCHLD:
            self._reap()
        else:
            self._end()

    def _reap(self) -> None:
        """Wait for what came to us as a subreaper and is nobody's init: a container's end is told by its pidfd."""
        inits = {container.init[0] for container in self._supervisor.containers.values()}
        try:
            children = _children()
        except OSError:
            return
        for pid in children - inits - {self._supervisor.launcher.pid}:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)

    def _busy(self) -> bool:
        insisting = self._fs_caller is not None and self._fs_caller.insisting
        return self._supervisor.busy() or bool(self._server.connections) or insisting

    def _changed(self) -> None:
        """Begin to linger where there is nothing left to do, or stop that."""
        if self._linger is None or self._busy():
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None:
            self._timer = self._loop.call_later(self._linger, self._idle)

    def _idle(self) -> None:
        """Go, unless somebody has come: whoever connects after the socket has gone starts another supervisor."""
        self._timer = None
        if self._busy() or self._server.accept():
            self._changed()
            return
        self._unlink()
        if self._server.accept():
            self._listen_again()
            self._changed()
            return
        self._end()

    def _unlink(self) -> None:
        """Remove our socket, but not one that a service manager has put into its place."""
        if self._file is not None and self._file == _made(self._path(SOCKET)):
            with contextlib.suppress(OSError):
                os.unlink(self._path(SOCKET))

    # ---- whether it is still where it was

    def _look_around(self) -> None:
        """Listen again where our socket was removed; end where the state root is not ours any more, or we are asked to
        make room.
        """
        self._look = self._loop.call_later(_LOOK_EVERY, self._look_around)
        if _identity(self._path()) != self._directory:
            log.error(f"the state root {self._root} has gone")
            self._end()
        elif room.is_wanted(self._root):
            log.info("makes room for a service")
            self._end()
        elif not os.path.exists(self._path(SOCKET)) and not self.ended.done():
            log.warning("the control socket has gone: listening anew")
            self._listen_again()
        self._supervisor.retry_unwatched()
        if self._said != (status := self._status()):
            self._said = status
            self._manager.status(status)
        self._changed()

    def _listen_again(self) -> None:
        try:
            directory = supervised.open_directory(self._root)
            try:
                listener = supervised.listen(self._root, directory)
            finally:
                os.close(directory)
        except OSError as error:
            log.error(f"listen: {error}")
            return
        self._file = _made(self._path(SOCKET))
        self._server.listen(listener)

    async def close(self, before: Callable[[], None]) -> None:
        """Leave everything in order; the containers run on."""
        for timer in (self._timer, self._look):
            if timer is not None:
                timer.cancel()
        self._manager.stopping()
        await asyncio.sleep(0)  # who asked for the end has been answered
        self._journal.publish("supervisor", "", {"action": "stop", "pid": os.getpid()})
        self._journal.close()
        await asyncio.sleep(0)
        self._server.close()
        self._onlooker.close()
        self._oom.close()
        if self._fs_caller is not None:
            await self._fs_caller.close()
        self._supervisor.close()
        await self._manager.barrier(1)
        self._manager.close()
        self._signals.close()
        log.info("ends")
        before()
        if self._directory == _identity(self._path()) and not room.is_wanted(self._root):
            self._unlink()
        os.close(self._lock)


def _identity(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _made(path: str) -> tuple[int, int, int] | None:
    """A file's identity with the time of its making: the number alone is soon another one's."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


def _children() -> set[int]:
    """Our children, as the kernel lists them (CONFIG_PROC_CHILDREN). Raises OSError."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return set(map(int, file.read().split()))

"""What the daemon does besides FUSE, on the asyncio loop: ends of containers, sockets, signals."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

from sysvisor_fs.rundir import program
from sysvisor_runc import log
from sysvisor_runc.kernel import sd_notify

if TYPE_CHECKING:
    from sysvisor_fs.keeper import Keeper
    from sysvisor_fs.node import Container
    from sysvisor_fs.options import Options
    from sysvisor_fs.registry import Registry

_HEEDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_TICK = 5.0  # seconds; the kernel's load averages have the same


def attend(registry: Registry, options: Options, keeper: Keeper) -> bool:
    """Until SIGTERM or SIGINT, or the holder is gone: whether it is still there."""
    return asyncio.run(_attend(registry, options, keeper))


async def _attend(registry: Registry, options: Options, keeper: Keeper) -> bool:
    from sysvisor_fs.outward import Outward

    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    registry.on_registered = lambda container: _watch(loop, registry, container)
    registry.on_unregistered = lambda container: _unwatch(loop, container)
    registry.watch_inits()
    loop.add_reader(keeper.fileno(), lambda: end.set() if keeper.is_gone() else None)
    if os.environ.get("SYSVISOR_FS_REMOUNT") != "manual":
        mend = Mend(loop, options)
        registry.on_lost = mend.soon
        for container_id in (*registry.revived, *registry.lost()):
            mend.start(container_id)
    inherited = {name: fd for name, fd in sd_notify.listen_fds() if name.endswith(".sock")}
    outward = Outward(registry, options, inherited)
    sd_notify.notify(READY=1, STATUS="serving", MAINPID=os.getpid())
    watchdog = loop.create_task(_watchdog())
    ticking = loop.create_task(_tick(registry, options.tree))
    try:
        await end.wait()
    finally:
        sd_notify.notify(STOPPING=1)
        watchdog.cancel()
        ticking.cancel()
        await asyncio.gather(watchdog, ticking, return_exceptions=True)
        await outward.close()
        loop.remove_reader(keeper.fileno())
    return not keeper.is_gone()


class Mend:
    """Runs `sysvisor-fs remount` for whoever has lost a connection: a program, since it enters containers."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: Options) -> None:
        self._loop = loop
        self._argv = [*program(), *options.argv(), "remount"]

    def soon(self, container_id: str) -> None:
        """Begin with one container, from any thread."""
        self._loop.call_soon_threadsafe(self.start, container_id)

    def start(self, container_id: str) -> None:
        """Begin with one container, on the loop."""
        try:
            argv = [*self._argv, container_id]
            pid = os.posix_spawn(argv[0], argv, dict(os.environ), setsigmask=[], setsigdef=_HEEDED)
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            log.error(f"container {container_id}: it cannot be mounted anew: {error}")
            return
        self._loop.add_reader(pidfd, self._ended, container_id, pid, pidfd)

    def _ended(self, container_id: str, pid: int, pidfd: int) -> None:
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        if status:
            log.error(f"container {container_id}: it was not mounted anew; try `sysvisor-fs remount {container_id}`")


async def _watchdog() -> None:
    """Tell systemd that the loop turns; that the FUSE thread does is the holder's to see."""
    every = sd_notify.watchdog_usec() / 1e6 / 2
    while every:
        sd_notify.notify(WATCHDOG=1)
        await asyncio.sleep(every)


async def _tick(registry: Registry, tree: str) -> None:
    """What the tree wants done now and then, on a thread that may wait."""
    tick = getattr(sys.modules.get(tree), "tick", None)
    while tick is not None:
        try:
            await asyncio.to_thread(tick, [one for one in registry.containers.values() if one.registered])
        except Exception as problem:  # noqa: BLE001 - a sample is missed, the next one may do
            log.error(f"the tree's tick: {type(problem).__name__}: {problem}")
        await asyncio.sleep(_TICK)


def _watch(loop: asyncio.AbstractEventLoop, registry: Registry, container: Container) -> None:
    loop.add_reader(container.init_pidfd, _ended, registry, container)


def _unwatch(loop: asyncio.AbstractEventLoop, container: Container) -> None:
    if container.init_pidfd >= 0:
        loop.remove_reader(container.init_pidfd)


def _ended(registry: Registry, container: Container) -> None:
    """Its init has ended, whether or not a runtime ever says so."""
    log.debug(f"container {container.id}: init has ended, forgetting it")
    if registry.containers.get(container.id) is container:
        registry.unregister(container.id)

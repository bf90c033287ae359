"""What the daemon does besides FUSE, on the asyncio loop: ends of containers, control socket, gRPC, signals."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

from sysvisor_runc import log
from sysvisor_runc.kernel import sd_notify

if TYPE_CHECKING:
    from sysvisor_fs.node import Container
    from sysvisor_fs.options import Options
    from sysvisor_fs.registry import Registry

_TICK = 5.0  # seconds; the kernel's load averages have the same


def attend(registry: Registry, options: Options) -> None:
    """Until SIGTERM or SIGINT."""
    asyncio.run(_attend(registry, options))


async def _attend(registry: Registry, options: Options) -> None:
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
    inherited = {name: fd for name, fd in sd_notify.listen_fds() if name.endswith(".sock")}
    outward = Outward(registry, options.run_dir, tcp_port=options.tcp_port, inherited=inherited)
    watchdog = loop.create_task(_watchdog())
    loading = loop.create_task(_load(outward))
    ticking = loop.create_task(_tick(registry, options.tree))
    try:
        await end.wait()
    finally:
        sd_notify.notify(STOPPING=1)
        watchdog.cancel()
        loading.cancel()
        ticking.cancel()
        await asyncio.gather(watchdog, loading, ticking, return_exceptions=True)
        await outward.close()


async def _load(outward: object) -> None:
    from sysvisor_fs.outward import Outward

    assert isinstance(outward, Outward)
    try:
        await outward.serve_grpc()
    except Exception as problem:  # noqa: BLE001 - a task's end: the files are served all the same
        log.error(f"gRPC cannot be served: {type(problem).__name__}: {problem}")
    sd_notify.notify(READY=1, STATUS="serving", MAINPID=os.getpid())


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

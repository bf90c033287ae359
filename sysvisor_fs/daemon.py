"""A daemon from its start to its end: first FUSE, then the rest.

lock ─ holder ─ its mount namespace ─ what it keeps ─ FUSE thread ─ replay ─┬─ asyncio: control, metrics, inits' ends
                                                   readers are served from here on
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING

from sysvisor_fs import keeper as holders
from sysvisor_fs import messages, rundir
from sysvisor_fs.fuse import mount
from sysvisor_fs.fuse.engine import Engine
from sysvisor_fs.fuse.handles import Handles
from sysvisor_fs.fuse.journal import Journal
from sysvisor_fs.fuse.names import Names
from sysvisor_fs.holder import JOURNAL
from sysvisor_fs.registry import Registry
from sysvisor_fs.rundir import program
from sysvisor_fs.store import Store
from sysvisor_runc import log
from sysvisor_runc.contract.names import LOG_FILE
from sysvisor_runc.errors import SysvisorError
from sysvisor_runc.kernel import sd_notify

if TYPE_CHECKING:
    from sysvisor_fs.fuse.engine import Link
    from sysvisor_fs.keeper import Keeper
    from sysvisor_fs.node import Directory
    from sysvisor_fs.options import Options

HANDLES = "handles"
HEEDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SWITCH = 0.0005  # seconds that another thread may keep the FUSE thread from running


def own_log(options: Options) -> str:
    """Where a daemon that a launch has started, and the holder, say what they have to say."""
    return f"{options.run_dir}/{LOG_FILE}"


def serve(options: Options) -> int:
    """Be the daemon until told to end; the exit code."""
    # Whoever tells us to end is heard once there is a loop to hear it; threads never do.
    signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)
    log_path = options.log or own_log(options)
    rundir.raise_descriptor_limit()
    rundir.make(options.run_dir)
    lock = rundir.lock(options.run_dir)
    messages.send_to(options.log, options.log_format, options.debug, own_log(options))
    keeper = holders.connect(options.run_dir)
    fresh = keeper is None
    if keeper is None:
        forget_names(options.run_dir)
        keeper = holders.start(options.run_dir, [*program(), *options.argv(), "holder"], log_path)
    # Under systemd it is systemd that starts another one.
    keeper.serve([] if os.environ.get("NOTIFY_SOCKET") else [*program(), *options.argv()])
    try:
        registry, engine = bring_up(options, keeper)
    except BaseException:
        if fresh:
            keeper.quit()
        raise
    keeper.ready()
    gc.collect()
    gc.freeze()  # what is there now stays: no collection looks at it again while a reader waits
    from sysvisor_fs.outside import attend

    held = attend(registry, options, keeper)
    engine.stop()
    if not held:
        log.error("the holder process is gone: starting anew")
        mount.unmount(options.mountpoint)  # in its mount namespace, which is the next holder's to begin with
        os.close(lock)
        if os.environ.get("NOTIFY_SOCKET"):
            return 1  # systemd starts another one, and has sockets to hand it
        sd_notify.clear_environment()
        os.execv(program()[0], [*program(), *options.argv()])
    if registry.containers:
        keeper.bye()
        log.info(f"ended; {len(registry.containers)} containers wait for the next daemon")
    else:
        keeper.quit()
    os.close(lock)
    return 0


def forget_names(run_dir: str) -> None:
    """There is no holder, so the kernels that were told these names are gone."""
    try:
        os.unlink(f"{Store(run_dir).directory}/names")
    except FileNotFoundError:
        pass


def bring_up(options: Options, keeper: Keeper) -> tuple[Registry, Engine]:
    """Go on where a predecessor ended. When it returns, requests are being answered."""
    kept = keeper.all()
    journal, handles = _memory(keeper, kept)
    store = Store(options.run_dir)
    engine = Engine(journal)
    names = Names(f"{store.directory}/names", _tree(options.tree))
    registry = Registry(options.mountpoint, engine, names, handles, store, keeper)
    engine.on_gone = lambda link: _gone(engine, registry, link)
    _recover(engine, registry.adopt(kept))
    sys.setswitchinterval(_SWITCH)
    engine.start()
    return registry, engine


def _memory(keeper: Keeper, kept: dict[str, int]) -> tuple[Journal, Handles]:
    """The memory that outlives us, a predecessor's or new."""
    try:
        journal = Journal(kept.pop(JOURNAL, -1))
    except ValueError as problem:
        log.warning(str(problem))
        journal = Journal()
    try:
        handles = Handles(kept.pop(HANDLES, -1))
    except ValueError as problem:
        log.warning(str(problem))
        handles = Handles()
    keeper.put(JOURNAL, journal.fd)
    keeper.put(HANDLES, handles.fd)
    return journal, handles


def _tree(name: str) -> Directory:
    try:
        module = importlib.import_module(name)
        tree: Directory = module.build_tree()
    except ImportError as error:
        raise SysvisorError(f"tree {name!r}: {error}")
    getattr(module, "prepare", bool)()  # what must be done before there are threads
    return tree


def _recover(engine: Engine, links: dict[int, Link]) -> None:
    """Answer what a predecessor owed: from the journal, and from the kernel where it sends again (Linux 6.9)."""
    how = os.environ.get("SYSVISOR_FS_RECOVERY") or "both"
    if how not in ("journal", "resend", "both"):
        raise SysvisorError(f"SYSVISOR_FS_RECOVERY={how!r}: expected journal, resend or both")
    count = engine.replay({} if how == "resend" else links)
    again = sum(engine.resend(link) for link in links.values()) if how != "journal" else 0
    if links:
        log.info(f"goes on with {len(links)} containers: {count} requests from the journal, {again} connections resend")


def _gone(engine: Engine, registry: Registry, link: Link) -> None:
    """The kernel has ended a connection: somebody aborted it."""
    log.error(f"container {link.session.container.id}: its connection was aborted")
    engine.silence(link)
    registry.on_lost(link.session.container.id)

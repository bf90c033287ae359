"""`start`: let the init of a created container execute its program."""

from __future__ import annotations

import os

from sysvisor_runc import log
from sysvisor_runc.cli.publish import is_heard, publish
from sysvisor_runc.launch.child import Child
from sysvisor_runc.launch.interrupt import hold_back
from sysvisor_runc.launch.start import start
from sysvisor_runc.state.observe import observe
from sysvisor_runc.state.process import NotRunning, open_init
from sysvisor_runc.state.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.parse import Options
    from sysvisor_runc.launch.notify import Proxy
    from sysvisor_runc.state.record import Record
    from sysvisor_runc.state.store import Entry


def run(options: Options) -> int:
    """Start the container; returns once its program runs, or is ready where a service manager waits for that."""
    hold_back()
    with Store(options.globals.root).open(options.args[0]) as entry:
        with entry.lock():
            record = entry.load()
            proxy = _listen(entry, record) if "NOTIFY_SOCKET" in os.environ else None
            init = _open(record) if proxy is not None or is_heard(options) else -1
            start(entry, record)
        publish(options, "start", {"pid": record["initPid"]}, [init] if init >= 0 else [])
        if proxy is not None:
            proxy.wait_ready(Child(record["initPid"], init))
    return 0


def _open(record: Record) -> int:
    """A pidfd of its init, while that cannot have ended unseen; -1 where it has."""
    try:
        return open_init(record)
    except NotRunning:
        return -1  # which `start` will tell in its own words


def _listen(entry: Entry, record: Record) -> Proxy | None:
    """Listen to what the container will tell the service manager, unless it cannot be started anyway."""
    from sysvisor_runc.kernel.sd_notify import address
    from sysvisor_runc.launch.notify import listen

    if not address() or observe(entry, record) != "created":
        return None
    proxy = listen(entry, address(), record)
    if proxy is None:
        log.warning(f"container {entry.id!r} was created without NOTIFY_SOCKET: it cannot say when it is ready")
    return proxy

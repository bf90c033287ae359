"""`start`: let the init of a created container execute its program."""

from __future__ import annotations

from sysvisor_runc.cli.publish import publish
from sysvisor_runc.launch.interrupt import hold_back
from sysvisor_runc.launch.start import start
from sysvisor_runc.state.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.parse import Options


def run(options: Options) -> int:
    """Start the container; returns once its program runs."""
    hold_back()
    with Store(options.globals.root).open(options.args[0]) as entry, entry.lock():
        record = entry.load()
        start(entry, record)
    publish(options, "start", {"pid": record["initPid"]})
    return 0

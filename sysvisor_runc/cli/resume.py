"""`sysvisor-runc resume`: let the processes of a paused container run on."""

from __future__ import annotations

from sysvisor_runc.cli.publish import publish
from sysvisor_runc.state.lifecycle import require
from sysvisor_runc.state.observe import observe
from sysvisor_runc.state.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.parse import Options


def run(options: Options) -> int:
    from sysvisor_runc.cgroup.manager import Manager

    with Store(options.globals.root).open(options.args[0]) as entry, entry.lock():
        record = entry.load()
        require("resume", observe(entry, record), entry.id)
        if "overlayWork" in record:
            from sysvisor_runc.launch.coherence import refresh_both

            refresh_both(record)
        Manager(record["cgroup"]["paths"]).thaw()
    publish(options, "resume")
    return 0

"""`sysvisor-runc state`: one container, as the JSON that the runtime specification asks for."""

from __future__ import annotations

import os
import sys

from sysvisor_runc.errors import NoRecord
from sysvisor_runc.jsonlight import dumps
from sysvisor_runc.state.observe import observe, observe_unrecorded
from sysvisor_runc.state.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.parse import Options
    from sysvisor_runc.state.record import Record, Status
    from sysvisor_runc.state.store import Entry


def run(options: Options) -> int:
    with Store(options.globals.root).open(options.args[0]) as entry:
        record, status = look(entry)
        # Without a closing newline, as runc prints it; the owner is told by `list` only.
        sys.stdout.write(dumps(describe(record, status) | supervised(entry, record, status), indent=2))
    return 0


def supervised(entry: Entry, record: Record, status: Status) -> dict[str, object]:
    """What is known of a supervised container beyond what runc tells; nothing of any other."""
    # By its name: the module is loaded only for those who need it.
    try:
        os.stat("supervision.json", dir_fd=entry.dirfd, follow_symlinks=False)
    except OSError:
        return {}
    from sysvisor_runc.state.supervision import load, shown

    known = load(entry)
    running = status in ("running", "paused")
    return {} if known is None else {"supervision": shown(known, record, running=running)}


def look(entry: Entry) -> tuple[Record, Status]:
    """A container's record and status.

    Raises:
        NoRecord: there is none, and nobody is about to write one.
    """
    try:
        record = entry.load()
    except NoRecord:
        if observe_unrecorded(entry) == "stopped":
            raise
        # The command that creates it has the lock. It may have written the record since we looked; before that, its
        # hooks see what the record will be.
        try:
            return entry.load(staged=True), "creating"
        except NoRecord:
            return entry.load(), "creating"
    return record, observe(entry, record)


def describe(record: Record, status: Status, owner: str = "") -> dict[str, object]:
    """What `state` and `list` show of a container, in runc's order of keys."""
    shown: dict[str, object] = {
        "ociVersion": record["ociVersion"],
        "id": record["id"],
        "pid": 0 if status == "stopped" else record["initPid"],
        "status": status,
        "bundle": record["bundle"],
        "rootfs": record["rootfs"],
        "created": record["created"],
    }
    if record["annotations"]:
        shown["annotations"] = dict(sorted(record["annotations"].items()))
    shown["owner"] = owner
    return shown

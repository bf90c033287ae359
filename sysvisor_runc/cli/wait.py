"""`wait`: return when a container has ended, and print its exit code."""

from __future__ import annotations

import sys

from sysvisor_runc import log
from sysvisor_runc.errors import SysvisorError
from sysvisor_runc.launch.tell import Dialogue, NoSupervisor
from sysvisor_runc.state import process, supervision
from sysvisor_runc.state.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.parse import Options
    from sysvisor_runc.state.record import Record
    from sysvisor_runc.state.store import Entry

UNKNOWN = 255
# How long the parent of an init may take to reap it: not before does the kernel tell us the code.
_PATIENCE = 1.0


def run(options: Options) -> int:
    """Print the exit code as a shell counts them; 255 with a warning where nobody knows it."""
    with Store(options.globals.root).open(options.args[0]) as entry:
        record = entry.load()
        code = exit_code(options.globals.root, entry, record)
    if code is None:
        log.warning(f"nobody knows how container {record['id']!r} ended: its init was reaped by another process")
    sys.stdout.write(f"{UNKNOWN if code is None else code}\n")
    return 0


def exit_code(root: str, entry: Entry, record: Record) -> int | None:
    """The container's exit code once it has ended; None where it is unknown."""
    if supervision.exists(entry):
        try:
            return _told(root, record["id"])
        except NoSupervisor:
            pass
    return _watched(entry, record)


def _told(root: str, container_id: str) -> int | None:
    with Dialogue(root) as dialogue:
        dialogue.patient()
        found = dialogue.ask({"op": "wait", "id": container_id}).get("exit")
    return found["code"] if isinstance(found, dict) else None


def _watched(entry: Entry, record: Record) -> int | None:
    """Without a supervisor we watch ourselves; its last record, or the kernel, tells."""
    try:
        init = process.open_init(record)
    except process.NotRunning:
        known = supervision.load(entry)
        found = None if known is None else known["exit"]
        return found["code"] if found is not None and supervision.is_of(found, record) else None
    from time import monotonic, sleep

    process.wait_exit(init)
    deadline = monotonic() + _PATIENCE
    status = process.zombie_status(record["initPid"], record["initStart"])
    while status is None and (status := process.wait_status(init)) is None and monotonic() < deadline:
        sleep(0.01)
    if status is None:
        return None
    return 128 + (status & 0x7F) if status & 0x7F else status >> 8 & 0xFF


def ended_with(root: str, container_id: str) -> int:
    """The exit code of a container whose terminal has ended, for `attach`.

    Raises:
        SysvisorError: it has not ended; the supervisor has.
    """
    try:
        code = _told(root, container_id)
    except SysvisorError as error:
        raise SysvisorError(
            f"the supervisor has ended, container {container_id!r} runs on", hint="attach again"
        ) from error
    return UNKNOWN if code is None else code

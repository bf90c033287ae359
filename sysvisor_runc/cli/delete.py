"""`delete`: remove a stopped container, with --force a running one too."""

from __future__ import annotations

from sysvisor_runc.cli.fsagent import serve_fs_agent
from sysvisor_runc.cli.publish import publish
from sysvisor_runc.cli.systemd import connect
from sysvisor_runc.errors import NoRecord, NoSuchContainer
from sysvisor_runc.launch import destroy
from sysvisor_runc.state import lifecycle
from sysvisor_runc.state.observe import observe
from sysvisor_runc.state.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.parse import Options
    from sysvisor_runc.state.store import Entry


def run(options: Options) -> int:
    """Delete the container. Forced, a container that does not exist is fine: it is gone, as asked."""
    force = options.flag("force")
    try:
        entry = Store(options.globals.root).open(options.args[0])
    except (NoSuchContainer, FileNotFoundError):
        if force:
            return 0
        raise
    try:
        with entry, entry.lock():
            _delete(entry, force=force)
        publish(options, "delete", {"force": force})
    except NoSuchContainer:  # another `delete` was faster
        if not force:
            raise
    return 0


def _delete(entry: Entry, *, force: bool) -> None:
    try:
        record = entry.load()
    except NoRecord:
        if not force:
            raise
        destroy.destroy_unrecorded(entry, connect, serve_fs_agent)
        return
    # A created container may go without --force, as with runc: its init waits for nobody else.
    lifecycle.require("delete --force" if force else "delete", observe(entry, record), record["id"])
    destroy.kill_init(record)
    destroy.destroy(entry, record, connect, force=force, serve_fs_agent=serve_fs_agent)

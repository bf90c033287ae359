"""`delete`: remove a stopped container, with --force a running one too."""

from __future__ import annotations

from sysvisor_runc.launch import destroy
from sysvisor_runc.state import lifecycle
from sysvisor_runc.state.observe import observe
from sysvisor_runc.state.store import NoRecord, NoSuchContainer, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.parse import Options


def run(options: Options) -> int:
    """Delete the container. Forced, a container that does not exist is fine: it is gone, as asked."""
    force = options.flag("force")
    try:
        entry = Store(options.globals.root).open(options.args[0])
    except (NoSuchContainer, FileNotFoundError):
        if force:
            return 0
        raise
    with entry, entry.lock():
        try:
            record = entry.load()
        except NoRecord:
            if not force:
                raise
            destroy.destroy_unrecorded(entry)
            return 0
        status = observe(entry, record)
        lifecycle.require("delete --force" if force else _verb(status), status, record["id"])
        destroy.kill_init(record)
        destroy.destroy(entry, record)
    return 0


def _verb(status: str) -> str:
    """A created container may be deleted: its init waits for nobody else. runc's `delete` kills it as well."""
    return "delete"

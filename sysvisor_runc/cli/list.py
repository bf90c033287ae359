"""`sysvisor-runc list`: all containers of a state root, as a table, as JSON, or their ids alone."""

from __future__ import annotations

import os
import sys

from sysvisor_runc import log
from sysvisor_runc.cli.state import describe, supervised
from sysvisor_runc.errors import NoRecord, NoSuchContainer, StateError, SysvisorError, reason
from sysvisor_runc.jsonlight import dumps
from sysvisor_runc.state.observe import observe, observe_unrecorded
from sysvisor_runc.state.record import rfc3339nano
from sysvisor_runc.state.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.parse import Options
    from sysvisor_runc.state.store import Entry

_COLUMNS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")
_KEYS = ("id", "pid", "status", "bundle", "created", "owner")
# As Go's tabwriter lays out runc's table: cells end 3 blanks before the next one, and take 12 at least.
_CELL_MIN = 12
_PADDING = 3


def run(options: Options) -> int:
    store = Store(options.globals.root)
    try:
        ids = store.ids()
    except FileNotFoundError as error:
        # No container was ever made there; but a root that somebody named is more likely misspelt.
        if options.globals.root_given:
            raise SysvisorError(f"open {store.root}: {reason(error)}", hint="--root must name an existing directory")
        ids = []
    shown = [row for row in (_row(store, container_id) for container_id in ids) if row is not None]
    if options.flag("quiet"):
        sys.stdout.write("".join(f"{row['id']}\n" for row in shown))
    elif options.text("format") == "json":
        # Go encodes a list without elements as null, and callers of runc expect that.
        sys.stdout.write((dumps(shown) if shown else "null") + "\n")
    else:
        sys.stdout.write(table(_cells(shown)))
    return 0


def _cells(rows: list[dict[str, object]]) -> list[tuple[str, ...]]:
    """The table, with columns behind runc's own as soon as one of the containers is a supervised one."""
    cells = [_COLUMNS, *(tuple(str(row[key]) for key in _KEYS) for row in rows)]
    if not any("supervision" in row for row in rows):
        return cells
    more = [("EXIT", "RESTARTS", "UPTIME"), *(_more(row.get("supervision")) for row in rows)]
    return [row + behind for row, behind in zip(cells, more, strict=True)]


def _more(known: object) -> tuple[str, ...]:
    if not isinstance(known, dict):
        return ("-", "-", "-")
    exited, uptime = "exited" in known, known.get("uptime")
    code = "-" if not exited or uptime is not None else "?" if known["exitCode"] is None else str(known["exitCode"])
    return (code, str(known["restartCount"]), "-" if uptime is None else _span(int(uptime)))


def _span(seconds: int) -> str:
    """A length of time in its two largest units: `5s`, `3m7s`, `2h40m`, `12d3h`."""
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{seconds % 60}s" if minutes else f"{seconds}s"


def _row(store: Store, container_id: str) -> dict[str, object] | None:
    """What is shown of one container; None where it was deleted meanwhile, or cannot be read (which is logged)."""
    try:
        with store.open(container_id) as entry:
            owner = user_name(os.fstat(entry.dirfd).st_uid)
            try:
                record = entry.load()
            except NoRecord:
                return _unrecorded(entry, owner)
            status = observe(entry, record)
            return describe(record, status, owner) | supervised(entry, record, status)
    except NoSuchContainer:
        return None
    except StateError as error:
        log.warning(f"not shown: {error}")
        return None


def _unrecorded(entry: Entry, owner: str) -> dict[str, object]:
    """A container that is only being made, or that a killed command left behind: shown, so that it can be deleted."""
    return {
        "ociVersion": "",
        "id": entry.id,
        "pid": 0,
        "status": observe_unrecorded(entry),
        "bundle": "",
        "rootfs": "",
        "created": rfc3339nano(os.fstat(entry.dirfd).st_ctime_ns),
        "owner": owner,
    }


def user_name(uid: int) -> str:
    """The name of a user of the host, or its number after a #."""
    if uid == 0:
        return "root"
    import pwd  # asks NSS, which loads libraries: not for the one answer that is nearly always wanted

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows of equally many cells as lines of aligned columns; the last column is not padded."""
    widths = [max(_CELL_MIN, max(map(len, column)) + _PADDING) for column in list(zip(*rows, strict=True))[:-1]]
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + row[-1] + "\n" for row in rows
    )

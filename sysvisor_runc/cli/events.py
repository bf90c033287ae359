"""`sysvisor-runc events`: what containers use and what happens to them, line by line.

With --stats it looks once and needs no loop; else `aio.events` follows.
"""

from __future__ import annotations

import sys

from sysvisor_runc.cli.duration import seconds
from sysvisor_runc.cli.parse import see_help
from sysvisor_runc.errors import StateError, SysvisorError, UsageError
from sysvisor_runc.jsonlight import dumps
from sysvisor_runc.state.running import all_running, find_running
from sysvisor_runc.state.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sysvisor_runc.cli.parse import Options
    from sysvisor_runc.state.record import Record

    Event = dict[str, object]


def run(options: Options) -> int:
    everyone = options.flag("all")
    since = options.number("since")
    _check(options, everyone, since)
    interval = seconds(options.text("interval") or "")
    if interval is None or interval <= 0:
        raise SysvisorError("duration interval must be greater than 0")
    store = Store(options.globals.root)
    show = _printer(options)
    if options.flag("stats"):
        _report(all_running(store) if everyone else [find_running(store, options.args[0])], show)
        return 0
    record = None if everyone else _wanted(store, options.args[0], history=since is not None)
    from sysvisor_runc.aio.events import Wish, follow

    usage = options.given("interval") or (since is None and not everyone)
    container_id = None if everyone else options.args[0]
    follow(Wish(store, container_id, record, since=since, interval=interval, usage=usage), show)
    return 0


def _check(options: Options, everyone: bool, since: int | None) -> None:
    if everyone == bool(options.args):
        wanted = "no argument with --all" if everyone else "exactly 1 argument(s)"
        raise UsageError(f'"events" requires {wanted}', hint=see_help("events"))
    if since is not None and since < 0:
        raise UsageError(f"invalid value {since} for flag --since: expected the number of an event")
    if since is not None and options.flag("stats"):
        raise UsageError("--since is for a stream of events, --stats for a single look", hint=see_help("events"))


def _wanted(store: Store, container_id: str, *, history: bool) -> Record | None:
    """The record of a container that has not ended; None of one that has, if its `history` is asked for."""
    try:
        return find_running(store, container_id)
    except StateError:
        if not history:
            raise
    return None


def _report(records: Iterable[Record], show: Callable[[Event], None]) -> None:
    """Usage once, of each container."""
    from sysvisor_runc.launch.usage import usage

    for record in records:
        show({"type": "stats", "id": record["id"], "data": usage(record)})


def _printer(options: Options) -> Callable[[Event], None]:
    """What shows an event, at once: whoever reads us waits for it."""
    if options.text("format") == "table":
        from sysvisor_runc.cli.eventtable import EventTable

        return EventTable(sys.stdout, options.args).show
    return _print_json


def _print_json(event: Event) -> None:
    sys.stdout.write(dumps(event) + "\n")
    sys.stdout.flush()

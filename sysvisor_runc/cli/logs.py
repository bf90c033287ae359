"""`logs`: what a detached container has written to its terminal, as far as it was kept."""

from __future__ import annotations

import os
import time
from datetime import UTC

from sysvisor_runc.cli.duration import seconds
from sysvisor_runc.errors import SysvisorError, UsageError
from sysvisor_runc.launch.tell import Dialogue, SupervisorError
from sysvisor_runc.state import consolelog
from sysvisor_runc.state.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.parse import Options

_CHUNK = 1 << 16


def run(options: Options) -> int:
    """Print what was kept; with --follow also what comes, until the container ends."""
    container_id = options.args[0]
    given = options.text("since")
    since = 0 if given is None else parse_moment(given, time.time())
    with Store(options.globals.root).open(container_id) as entry:
        if not options.flag("follow"):
            if not consolelog.exists(entry.dirfd) and not entry.load()["spec"]["process"].get("terminal"):
                raise SysvisorError(
                    f"no terminal of container {container_id!r} is kept",
                    hint="its output went where that of `run --detach` went; for a log set process.terminal",
                )
            _print_kept(entry.dirfd, since, None)
            return 0
        try:
            dialogue = Dialogue(options.globals.root)
            position = dialogue.ask({"op": "logs", "id": container_id})["position"]
        except SupervisorError:
            # It has ended: what was kept is all that there is.
            if not consolelog.exists(entry.dirfd):
                raise
            _print_kept(entry.dirfd, since, None)
            return 0
        with dialogue:
            dialogue.patient()
            _print_kept(entry.dirfd, since, position if isinstance(position, int) else None)
            _follow(dialogue)
    return 0


def parse_moment(text: str, now: float) -> int:
    """A moment in nanoseconds since the epoch: RFC 3339 with a time zone or `Z`, seconds since the epoch, or how long
    ago (`10m`).

    Raises:
        UsageError: it is none of them.
    """
    ago = seconds(text)
    if ago is not None:
        return int((now - ago) * 1e9)
    try:
        return int(float(text) * 1e9)
    except ValueError:
        pass
    from datetime import datetime

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--since: {text!r} is no moment", hint="such as 2024-05-01T12:00:00Z, or 10m") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1e9)


def _print_kept(dirfd: int, since: int, end: int | None) -> None:
    for moment, position, data in consolelog.read(dirfd):
        if moment >= since:
            _write(data if end is None else data[: max(0, end - position)])


def _follow(dialogue: Dialogue) -> None:
    _write(dialogue.rest())
    while data := os.read(dialogue.fileno(), _CHUNK):
        _write(data)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]

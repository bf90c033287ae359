"""Events as lines of a table that is written while they come: columns have their widths before the first row."""

from __future__ import annotations

import time

from sysvisor_runc.log import printable
from sysvisor_runc.state.record import rfc3339nano

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    Event = dict[str, object]
    Table = dict[str, object]

_TIME, _SEQ, _TYPE, _ID = 24, 6, 10, 16
_GAP = "  "
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
# More than any machine has: v1's way to say that there is no limit (PAGE_COUNTER_MAX in bytes), and v2's max.
_NO_LIMIT = 1 << 62


class EventTable:
    """Writes a row per event, and a line of titles before the first one.

    `ids` are those of the containers that are asked for, so that the column is as wide as it will have to be.
    """

    def __init__(self, out: TextIO, ids: list[str]) -> None:
        self._out = out
        self._widths = (_TIME, _SEQ, _TYPE, max([_ID, *map(len, ids)]))
        self._begun = False
        # Id → (when, nanoseconds of CPU time used until then).
        self._used: dict[str, tuple[int, int]] = {}

    def show(self, event: Event) -> None:
        """Write the row of one event."""
        if not self._begun:
            self._begun = True
            self._row("TIME", "SEQ", "TYPE", "ID", "DETAILS")
        kind, container_id, seq = str(event["type"]), str(event.get("id", "-")), str(event.get("seq", "-"))
        details = self._usage(container_id, _table(event, "data")) if kind == "stats" else _details(event)
        self._row(_moment(event), seq, kind, container_id, details)
        self._out.flush()

    def _row(self, *cells: str) -> None:
        padded = [cell.ljust(width) for cell, width in zip(cells, self._widths, strict=False)]
        self._out.write(printable(_GAP.join([*padded, cells[-1]]).rstrip()) + "\n")

    def _usage(self, container_id: str, data: Table) -> str:
        """What people look for first: CPU, memory, processes, network."""
        memory = _table(_table(data, "memory"), "usage")
        pids = _table(data, "pids")
        words = [
            f"cpu={self._cpu(container_id, data)}",
            f"memory={amount(_number(memory, 'usage'))}" + _limit(memory, amount),
            f"pids={_number(pids, 'current')}" + _limit(pids, str),
        ]
        interfaces = data.get("network_interfaces")
        if isinstance(interfaces, list) and interfaces:
            rx, tx = (sum(_number(row, key) for row in interfaces) for key in ("RxBytes", "TxBytes"))
            words.append(f"net={amount(rx)}/{amount(tx)}")
        return " ".join(words)

    def _cpu(self, container_id: str, data: Table) -> str:
        """Per cent of one CPU since the last row, or the time used so far in the first one."""
        now, used = time.monotonic_ns(), _number(_table(_table(data, "cpu"), "usage"), "total")
        before = self._used.get(container_id)
        self._used[container_id] = (now, used)
        if before is None or now <= before[0]:
            return f"{used / 1e9:.2f}s"
        return f"{max(0.0, 100 * (used - before[1]) / (now - before[0])):.1f}%"


def amount(number: int) -> str:
    """A number of bytes, such as 1.5GiB."""
    value = float(number)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f}{unit}" if unit == "B" or value >= 100 else f"{value:.1f}{unit}"


def _limit(table: Table, shown: object) -> str:
    limit = _number(table, "limit")
    return f"/{shown(limit)}" if 0 < limit < _NO_LIMIT else ""  # type: ignore[operator]  # amount or str


def _moment(event: Event) -> str:
    """The time of the event, or of now for one that bears none, to the millisecond."""
    said = event.get("time")
    text = said if isinstance(said, str) else rfc3339nano(time.time_ns())
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return f"{whole}.{fraction[:3]:0<3}Z"


def _details(event: Event) -> str:
    if event["type"] == "dropped":
        return f"count={event.get('count')}"
    return " ".join(f"{key}={_word(value)}" for key, value in _table(event, "data").items())


def _word(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(_word, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, dict):
        return "-" if value is None else "{...}"
    return str(value)


def _table(table: Table, key: str) -> Table:
    value = table.get(key)
    return value if isinstance(value, dict) else {}


def _number(table: Table, key: str) -> int:
    value = table.get(key)
    return value if isinstance(value, int) else 0

"""The traffic of a container's network interfaces, as the kernel counts it inside; loaded by `events` only.

/proc/PID/net/dev is that of the network namespace of PID: nobody needs to go in there, and nothing of the container's
is opened. The names are the container's choice, though: any bytes but blanks, slashes and colons.
"""

from __future__ import annotations

import os

from sysvisor_runc.kernel import file
from sysvisor_runc.state.process import is_alive

# Go's names of runc's struct → the column in /proc/net/dev (net/core/net-procfs.c, dev_seq_printf_stats).
_COLUMNS = {
    "RxBytes": 0,
    "RxPackets": 1,
    "RxErrors": 2,
    "RxDropped": 3,
    "TxBytes": 8,
    "TxPackets": 9,
    "TxErrors": 10,
    "TxDropped": 11,
}


def interfaces(pid: int, start: int) -> list[dict[str, object]] | None:
    """The interfaces of the init with `pid` that started at `start`, but for lo; None where it has none of its own.

    One that shares our network namespace has none: what the host sends is not its traffic.
    """
    if _namespace(str(pid)) in ("", _namespace("self")):
        return None
    try:
        table = file.read(f"/proc/{pid}/net/dev")
    except OSError:  # it has ended
        return None
    if not is_alive(pid, start):
        return None  # whose was it, then?
    return parse(table) or None


def parse(text: bytes) -> list[dict[str, object]]:
    """The lines of /proc/net/dev: `name: 8 numbers received, 8 numbers sent`, below two lines of titles."""
    found: list[dict[str, object]] = []
    for line in text.split(b"\n")[2:]:
        name, _, numbers = line.strip(b" ").partition(b":")
        columns = numbers.split()
        if name == b"lo" or len(columns) < 16:
            continue
        shown = name.decode("utf-8", "replace")
        found.append({"Name": shown, **{key: int(columns[column]) for key, column in _COLUMNS.items()}})
    return found


def _namespace(process: str) -> str:
    """What tells its network namespace from others; empty where the process is gone, or nothing we may look at."""
    try:
        return os.readlink(f"/proc/{process}/ns/net")
    except OSError:
        return ""

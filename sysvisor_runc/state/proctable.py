"""Processes as `ps -ef` shows them, read from /proc: no `ps` has to be installed on the host, nor started.

What a process says of itself comes from inside the container, so nothing in it may reach a terminal as a control code.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")
# Columns whose values stand at the right; the others begin at the left, as procps has them.
_RIGHT = ("PID", "PPID", "C", "TIME")
_WIDTHS = {"UID": 8, "PID": 7, "PPID": 7, "C": 2, "STIME": 5, "TTY": 8, "TIME": 8}

_DAY = 86400
_CMDLINE_MAX = 4096


def table(pids: list[int], user_name: Callable[[int], str]) -> str:
    """One line for each of `pids` that still exists, under the header of `ps -ef`; `user_name` names a uid."""
    clock = _Clock()
    rows: list[tuple[str, ...]] = [HEADER]
    for pid in sorted(pids):
        row = _row(pid, clock, user_name)
        if row is not None:
            rows.append(row)
    widths = [max(_WIDTHS.get(name, 0), *(len(row[i]) for row in rows)) for i, name in enumerate(HEADER)]
    return "".join(_line(row, widths) for row in rows)


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    cells = [
        cell.rjust(width) if name in _RIGHT else cell.ljust(width)
        for name, cell, width in zip(HEADER, row, widths, strict=True)
    ]
    return " ".join(cells).rstrip() + "\n"


class _Clock:
    """The moments and units by which /proc counts time."""

    __slots__ = ("boot", "now", "ticks")

    def __init__(self) -> None:
        self.now = time.time()
        self.boot = self.now - time.clock_gettime(time.CLOCK_BOOTTIME)
        self.ticks = os.sysconf("SC_CLK_TCK")


def _row(pid: int, clock: _Clock, user_name: Callable[[int], str]) -> tuple[str, ...] | None:
    """The cells of one process (proc_pid_stat(5)), None where it has ended meanwhile."""
    try:
        uid = os.stat(f"/proc/{pid}").st_uid
        stat = _read(f"/proc/{pid}/stat", 1024)
        arguments = _read(f"/proc/{pid}/cmdline", _CMDLINE_MAX)
    except OSError:
        return None
    name = stat[stat.index(b"(") + 1 : stat.rindex(b")")]
    # fields[0] is field 3 of the manual page, after the pid and the command name.
    fields = stat[stat.rindex(b")") + 2 :].split()
    used = (int(fields[11]) + int(fields[12])) / clock.ticks
    started = clock.boot + int(fields[19]) / clock.ticks
    age = max(clock.now - started, 1.0)
    return (
        user_name(uid),
        str(pid),
        fields[1].decode(),
        str(min(int(100 * used / age), 99)),
        _start(started, clock.now),
        _terminal(int(fields[4])),
        _cumulative(int(used)),
        _command(name, arguments, zombie=fields[0] == b"Z"),
    )


def _start(started: float, now: float) -> str:
    """When it started: the time of day, further back the day, further still the year."""
    then, today = time.localtime(started), time.localtime(now)
    if now - started < _DAY:
        return f"{then.tm_hour:02d}:{then.tm_min:02d}"
    return time.strftime("%b%d", then) if then.tm_year == today.tm_year else str(then.tm_year)


def _terminal(tty: int) -> str:
    """The controlling terminal from its device number: pts/N, ttyN, ttySN, else ?."""
    major, minor = tty >> 8 & 0xFFF, tty & 0xFF | tty >> 12 & 0xFFF00
    if 136 <= major <= 143:  # Unix98 pty slaves (Documentation/admin-guide/devices.txt)
        return f"pts/{(major - 136) * 256 + minor}"
    if major == 4:
        return f"tty{minor}" if minor < 64 else f"ttyS{minor - 64}"
    return "?"


def _cumulative(seconds: int) -> str:
    days, rest = divmod(seconds, _DAY)
    text = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days}-{text}" if days else text


def _command(name: bytes, arguments: bytes, *, zombie: bool) -> str:
    if zombie:
        return f"[{_printable(name)}] <defunct>"
    # Kernel threads, and processes that wiped their arguments, have none.
    return (
        _printable(arguments.rstrip(b"\0").replace(b"\0", b" ")) if arguments.strip(b"\0") else f"[{_printable(name)}]"
    )


def _printable(data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in text)


def _read(path: str, limit: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, limit)
    finally:
        os.close(fd)

"""What the runtime says besides its result. Any layer may speak here; only the command line decides who listens.

Imports nothing of ours. Until the command line appoints a sink, warnings and errors go to standard error.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_RANKS = {"debug": 0, "info": 1, "warning": 2, "error": 3}


def to_stderr(level: str, message: str) -> None:
    """The sink that needs no setting up. A closed standard error silences it: there is nobody left to tell."""
    line = f"sysvisor-runc: {level}: {printable(message)}\n"
    try:
        os.write(2, line.encode("utf-8", "surrogateescape"))
    except OSError:
        pass


def printable(text: str) -> str:
    """`text` on one line and without control codes: what a container says must not steer the caller's terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c in "\n\t" else _escaped(ord(c)) for c in text)


def _escaped(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, as surrogateescape carries it
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


_sink: Callable[[str, str], None] = to_stderr
_threshold = _RANKS["warning"]


def listen(sink: Callable[[str, str], None], lowest: str) -> None:
    """Send everything from the level `lowest` upwards to `sink(level, message)` from now on."""
    global _sink, _threshold
    _sink = sink
    _threshold = _RANKS[lowest]


def is_default() -> bool:
    """Whether nobody has been appointed to listen yet."""
    return _sink is to_stderr


def debugging() -> bool:
    """Whether debug messages are heard, for callers whose message is costly to make."""
    return _threshold == 0


def write(level: str, message: str) -> None:
    """Say `message` at `level`: debug, info, warning or error."""
    if _RANKS[level] >= _threshold:
        _sink(level, message)


def debug(message: str) -> None:
    """For somebody who wants to follow what the runtime does."""
    write("debug", message)


def info(message: str) -> None:
    """Worth a line in the log file of somebody who keeps one."""
    write("info", message)


def warning(message: str) -> None:
    """The command goes on, but not quite as asked."""
    write("warning", message)


def error(message: str) -> None:
    """The command fails, or something that it looks after did."""
    write("error", message)

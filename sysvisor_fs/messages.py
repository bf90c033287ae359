"""Where the daemon's messages go, lines of text or of JSON, to standard error or a file; and what commands print."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from sysvisor_runc import log
from sysvisor_runc.errors import SysvisorError, reason
from sysvisor_runc.jsonlight import dumps

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST = 1 << 20  # bytes of a log of ours
_BROKEN_PIPE = 128 + 13  # as a shell tells an end by SIGPIPE


def _time() -> str:
    now = time.time()
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03d}Z"


def _text(level: str, message: str) -> str:
    return f"{_time()} sysvisor-fs[{os.getpid()}]: {level}: {log.printable(message)}\n"


def _json(level: str, message: str) -> str:
    entry = {"time": _time(), "level": level, "pid": os.getpid(), "program": "sysvisor-fs", "msg": message}
    return dumps(entry) + "\n"


def show(text: str) -> None:
    """Print what a command was asked for.

    Raises:
        SysvisorError: it cannot be written.
        SystemExit: nobody reads it any more.
    """
    left = text.encode("utf-8", "backslashreplace")
    try:
        while left:
            left = left[os.write(1, left) :]
    except BrokenPipeError:
        raise SystemExit(_BROKEN_PIPE) from None
    except OSError as error:
        raise SysvisorError(f"write to standard output: {reason(error)}") from error


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def send_to(path: str, form: str, debug: bool, ours: str = "") -> None:
    """From now on messages are appended to `path`, or go to standard error where it is empty.

    `ours`: the log that nobody else looks after. Where standard error is that file, it is put aside when it is long.
    """
    line = _json if form == "json" else _text
    if not path and ours and _is_open_as(2, ours):
        write: Callable[[bytes], None] = Rotated(ours, 2).write
    else:
        fd = _open(path) if path else 2

        def write(data: bytes) -> None:
            os.write(fd, data)

    def sink(level: str, message: str) -> None:
        try:
            write(line(level, message).encode("utf-8", "surrogateescape"))
        except OSError:
            pass  # nobody is left to be told

    log.listen(sink, "debug" if debug else "info")


class Rotated:
    """A log that is put aside as `PATH.1` when it is long. Daemon and holder have the same one.

    `descriptor` is kept open on it: what others write to standard error, and who inherits it, shall find it too.
    """

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def write(self, data: bytes) -> None:
        """Append a message."""
        try:
            fd = _open(self._path)
        except OSError:  # no descriptor is left: where it was shall do
            os.write(self._descriptor, data)
            return
        try:
            if os.fstat(fd).st_size > LONGEST and _is_open_as(fd, self._path):  # the other one may have been quicker
                os.rename(self._path, f"{self._path}.1")
                os.close(fd)
                fd = _open(self._path)
            if not os.path.samestat(os.fstat(fd), os.fstat(self._descriptor)):
                os.dup2(fd, self._descriptor)
            os.write(fd, data)
        finally:
            os.close(fd)


def _is_open_as(fd: int, path: str) -> bool:
    """Whether a descriptor is of the file of this name."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except OSError:
        return False

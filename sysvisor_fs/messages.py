"""Where the daemon's messages go: lines of text or of JSON, to standard error or a file."""

from __future__ import annotations

import os
import time

from sysvisor_runc import log
from sysvisor_runc.jsonlight import dumps


def _time() -> str:
    now = time.time()
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03d}Z"


def _text(level: str, message: str) -> str:
    return f"{_time()} sysvisor-fs[{os.getpid()}]: {level}: {log.printable(message)}\n"


def _json(level: str, message: str) -> str:
    entry = {"time": _time(), "level": level, "pid": os.getpid(), "program": "sysvisor-fs", "msg": message}
    return dumps(entry) + "\n"


def send_to(path: str, form: str, debug: bool) -> None:
    """From now on messages are appended to `path`, or go to standard error where it is empty."""
    fd = 2
    if path:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(path, flags, 0o600)
    line = _json if form == "json" else _text

    def sink(level: str, message: str) -> None:
        try:
            os.write(fd, line(level, message).encode("utf-8", "surrogateescape"))
        except OSError:
            pass  # nobody is left to be told

    log.listen(sink, "debug" if debug else "info")

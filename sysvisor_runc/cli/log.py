"""Log lines as logrus writes them, to the --log file or to standard error.

Clients of runc read them back: containerd's shim takes the error of a failed command from the last JSON line. Loaded
only for --log, --log-format and --debug.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from sysvisor_runc import log
from sysvisor_runc.errors import SysvisorError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.cli.parse import GlobalOptions

# The log must not sit where a caller's `--preserve-fds` or $LISTEN_FDS expects a descriptor to hand on.
_LOWEST_FD = 200
_PLAIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._/@^+"


def configure(shared: GlobalOptions) -> bool:
    """Appoint the sink that the global flags ask for. Returns whether it is standard error.

    Raises SysvisorError if the file cannot be opened.
    """
    fd = 2 if shared.log is None else _open(shared.log)
    form = json_line if shared.log_format == "json" else text_line
    log.listen(_sink(fd, form), "debug" if shared.debug else "info")
    return fd == 2


def text_line(level: str, message: str) -> str:
    """`time="…" level=… msg="…"`, quoted where logrus would."""
    plain = not message.strip(_PLAIN) and message.isascii()
    return f'time="{timestamp()}" level={level} msg={message if plain else quoted(message)}\n'


def json_line(level: str, message: str) -> str:
    """One JSON object with logrus' keys in logrus' order."""
    from _json import encode_basestring_ascii

    return f'{{"level":"{level}","msg":{encode_basestring_ascii(message)},"time":"{timestamp()}"}}\n'


def timestamp() -> str:
    """Now, in local time, as RFC 3339 demands it: 2024-05-06T07:08:09+02:00, or Z for UTC."""
    now = time.localtime()
    offset = now.tm_gmtoff // 60
    zone = f"{'+' if offset >= 0 else '-'}{abs(offset) // 60:02}:{abs(offset) % 60:02}" if offset else "Z"
    return time.strftime("%Y-%m-%dT%H:%M:%S", now) + zone


def quoted(text: str) -> str:
    """`text` in double quotes on one line, with Go's escapes."""
    named = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return f'"{"".join(named.get(c) or (c if c.isprintable() else _escaped(ord(c))) for c in text)}"'


def _escaped(code: int) -> str:
    if code < 0x80:
        return f"\\x{code:02x}"
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, as surrogateescape carries it
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _sink(fd: int, form: Callable[[str, str], str]) -> Callable[[str, str], None]:
    def sink(level: str, message: str) -> None:
        # A full disk or a closed standard error must not turn a working command into a failing one.
        try:
            os.write(fd, form(level, message).encode("utf-8", "surrogateescape"))
        except OSError:
            pass

    return sink


def _open(path: str) -> int:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o644)
    except OSError as error:
        raise SysvisorError(f"open log file {path!r}: {reason(error)}") from error
    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST_FD)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EMFILE):  # RLIMIT_NOFILE is lower: stay where we are
            raise
        return fd
    os.close(fd)
    return high

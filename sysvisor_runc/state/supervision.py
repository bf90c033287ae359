"""What the supervisor knows of a container, on disk: `ID/supervision.json`, beside the container's record.

    {"version": 1, "restart": {"policy": "on-failure", "retries": 5, "delay": 0.1}, "restartCount": 0,
     "restarting": false, "health": "", "exit": null or
     {"code": 1, "signal": null, "oom": false, "time": "…Z", "initPid": 4711, "initStart": 123456}}

`run --detach` writes it before it hands the container over; that it is there makes a container a supervised one. From
then on the supervisor alone replaces it. At run time a plain dict, as the record is.
"""

from __future__ import annotations

import errno
import os

from sysvisor_runc.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    from sysvisor_runc.state.record import Record
    from sysvisor_runc.state.store import Entry

    class Restart(TypedDict):
        """`policy`: no, on-failure, always or unless-stopped; `retries`: 0 for any number; `delay` in seconds."""

        policy: str
        retries: int
        delay: float

    class Exit(TypedDict):
        """How the init that had `initPid` and `initStart` ended; `code` is None where nobody knows."""

        code: int | None
        signal: int | None
        oom: bool
        time: str
        initPid: int
        initStart: int

    class Supervision(TypedDict):
        """`restarting`: another start is due; `health`: why it is not looked after as it should be, "" normally."""

        version: int
        restart: Restart
        restartCount: int
        restarting: bool
        health: str
        exit: Exit | None


FILE = "supervision.json"
# Somebody has asked for the end: `kill`, before it sends the signal.
STOP_ASKED = "stop-asked"
# The command that runs it in the foreground starts it again, and wants to know of that.
PERSISTS = "persists"
ANNOTATION = "org.sysvisor.restart"
POLICIES = ("no", "on-failure", "always", "unless-stopped")
_RETRIES_MAX = 1 << 31


def parse_policy(text: str, delay: float | None, where: str) -> Restart:
    """A restart policy as Docker writes them: `no`, `on-failure[:N]`, `always`, `unless-stopped`.

    Raises:
        UsageError: it is none; `where` names the flag or annotation.
    """
    name, colon, number = text.partition(":")
    retries = 0
    wrong = name not in POLICIES or (colon and name != "on-failure")
    if colon and not wrong:
        wrong = not (number.isascii() and number.isdigit() and int(number[:11]) < _RETRIES_MAX)
        retries = 0 if wrong else int(number)
    if wrong:
        raise UsageError(f"{where}: {text!r} is no restart policy", hint="no|on-failure[:N]|always|unless-stopped")
    return {"policy": name, "retries": retries, "delay": 0.1 if delay is None else delay}


def new_supervision(restart: Restart) -> Supervision:
    """Of a container that is about to be handed over."""
    return {"version": 1, "restart": restart, "restartCount": 0, "restarting": False, "health": "", "exit": None}


def load(entry: Entry) -> Supervision | None:
    """What is known of a container; None of one that nobody supervises, or where the file is damaged."""
    try:
        fd = os.open(FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=entry.dirfd)
    except OSError:
        return None
    from sysvisor_runc.jsonlight import loads

    try:
        value = loads(os.read(fd, 1 << 16))
    except (OSError, ValueError):
        return None
    finally:
        os.close(fd)
    if not isinstance(value, dict) or not isinstance(value.get("restart"), dict):
        return None
    return value  # type: ignore[return-value]  # the shape that save() gave it


def save(entry: Entry, supervision: Supervision) -> None:
    """Replace what is stored, whole or not at all. Raises OSError."""
    from sysvisor_runc.jsonlight import dumps

    data = dumps(supervision).encode()
    try:
        write(entry, FILE, data)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _overwrite(entry, data)


def _overwrite(entry: Entry, data: bytes) -> None:
    """Write over the file that is there, which has its block already. Raises OSError."""
    fd = os.open(FILE, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=entry.dirfd)
    try:
        os.pwrite(fd, data, 0)
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)


def write(entry: Entry, name: str, data: bytes) -> None:
    """Replace a file in the container's directory, whole or not at all. Raises OSError."""
    new = name + ".new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(new, flags, 0o600, dir_fd=entry.dirfd)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
        os.rename(new, name, src_dir_fd=entry.dirfd, dst_dir_fd=entry.dirfd)
    except OSError:
        try:
            os.unlink(new, dir_fd=entry.dirfd)
        except OSError:
            pass
        raise


def ask_stop(entry: Entry) -> None:
    """Note that somebody wants the container to end, before it does; nothing where nobody starts it again."""
    if not (exists(entry) or _there(entry, PERSISTS)):
        return
    try:
        _touch(entry, STOP_ASKED)
    except OSError:
        pass  # no room: the container may be started once more than it should


def will_persist(entry: Entry) -> None:
    """Have it noted, too, for a container that its command starts again. Raises OSError."""
    _touch(entry, PERSISTS)


def exists(entry: Entry) -> bool:
    """Whether a container is a supervised one."""
    return _there(entry, FILE)


def stop_asked(entry: Entry) -> bool:
    """Whether somebody wants the container to end."""
    return _there(entry, STOP_ASKED)


def forget_stop(entry: Entry) -> None:
    """It has been started again since."""
    try:
        os.unlink(STOP_ASKED, dir_fd=entry.dirfd)
    except OSError:
        pass


def is_of(exit_: Exit | None, record: Record) -> bool:
    """Whether an exit record is that of the container's present init."""
    return exit_ is not None and (exit_["initPid"], exit_["initStart"]) == (record["initPid"], record["initStart"])


def shown(known: Supervision, record: Record, *, running: bool) -> dict[str, object]:
    """What people are shown of a supervised container: how its last run ended, how often it was started again."""
    value: dict[str, object] = {
        "restartPolicy": known["restart"]["policy"],
        "restartCount": known["restartCount"],
        "restarting": known["restarting"] and not running,
    }
    if running:
        value["uptime"] = round(_uptime(record["initStart"]), 2)
    exit_ = known["exit"]
    if exit_ is not None:
        value |= {"exitCode": exit_["code"], "exitSignal": exit_["signal"], "oomKilled": exit_["oom"]}
        value["exited"] = exit_["time"]
    if known["health"]:
        value["health"] = known["health"]
    return value


def _uptime(ticks: int) -> float:
    """How long a process has run: its start is counted since boot, suspended or not, as /proc/uptime is."""
    with open("/proc/uptime", encoding="ascii") as file:
        return max(0.0, float(file.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK"))


def _touch(entry: Entry, name: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(name, flags, 0o600, dir_fd=entry.dirfd))


def _there(entry: Entry, name: str) -> bool:
    try:
        os.stat(name, dir_fd=entry.dirfd, follow_symlinks=False)
    except OSError:
        return False
    return True

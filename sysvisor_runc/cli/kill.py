"""`sysvisor-runc kill`: send a signal to a container's init, through a pidfd that cannot hit another process.

Takes no lock, so that a container can be killed while another command is stuck with it.
"""

from __future__ import annotations

import os

from sysvisor_runc.cli.publish import publish
from sysvisor_runc.errors import UsageError
from sysvisor_runc.state.observe import is_frozen
from sysvisor_runc.state.process import NotRunning, is_alive, open_init, send_signal
from sysvisor_runc.state.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal  # the same numbers, and typeshed knows it

    from sysvisor_runc.cli.parse import Options
    from sysvisor_runc.state.record import Record
    from sysvisor_runc.state.store import Entry
else:
    import _signal

_LAST = 64  # _NSIG on every architecture but MIPS


def run(options: Options) -> int:
    given = options.args[1] if len(options.args) > 1 else ""
    signal = parse_signal(given) if given else None
    with Store(options.globals.root).open(options.args[0]) as entry:
        record = entry.load()
        if signal is None:
            signal = record.get("stopSignal", _signal.SIGTERM)
        if signal in (_signal.SIGTERM, _signal.SIGKILL, record.get("stopSignal")):
            _note_stop(entry)
    try:
        kill(record, signal)
    except NotRunning:
        # All that is left of --all: it once meant every process, which SIGKILL has always reached anyway.
        if not options.flag("all"):
            raise
    else:
        publish(options, "kill", {"signal": signal})
    return 0


def _note_stop(entry: Entry) -> None:
    """Who ends a container does not want it to be started again. Names, so that only who needs it loads the module."""
    for name in ("supervision.json", "persists"):
        try:
            os.stat(name, dir_fd=entry.dirfd, follow_symlinks=False)
        except OSError:
            continue
        from sysvisor_runc.state.supervision import ask_stop

        ask_stop(entry)
        return


def parse_signal(text: str) -> int:
    """A signal by number or by name, with or without SIG, in any case; also `RTMIN+3`, as systemd's stop signals.

    Raises:
        UsageError: there is no such signal.
    """
    digits = text.isascii() and text.isdigit() and len(text) < 10
    number = int(text) if digits else _by_name(text.upper().removeprefix("SIG"))
    if number is None or number > _LAST:
        raise UsageError(f"unknown signal {text!r}", hint=f"a name such as TERM, or a number from 0 to {_LAST}")
    return number


def _by_name(name: str) -> int | None:
    base, sign, offset = name.partition("+" if "+" in name else "-")
    if sign and base in ("RTMIN", "RTMAX") and offset.isascii() and offset.isdigit() and len(offset) < 3:
        first = _signal.SIGRTMIN if base == "RTMIN" else _signal.SIGRTMAX
        number = first + int(sign + offset)
        return number if _signal.SIGRTMIN <= number <= _signal.SIGRTMAX else None
    # SIG_BLOCK and its like are in there too: no signal's name begins with an underscore.
    found = getattr(_signal, "SIG" + name, None) if name.isalnum() else None
    return found if isinstance(found, int) else None


def kill(record: Record, signal: int) -> None:
    """Send `signal` to the container's init; SIGKILL ends all its processes, whatever its namespaces.

    Raises:
        NotRunning: init has ended, and nothing is left to kill.
        StateError, CgroupError: a signal was refused.
    """
    if signal == _signal.SIGKILL and not has_own_pids(record) and record["cgroup"]["paths"]:
        # Without a pid namespace of its own the kernel does not end the others with init.
        _kill_everything(record)
        return
    pidfd = open_init(record)
    send_signal(pidfd, signal)
    if signal == _signal.SIGKILL and is_frozen(record):
        # A process that the v1 freezer holds dies only once it is let go.
        from sysvisor_runc.cgroup.manager import Manager

        Manager(record["cgroup"]["paths"]).thaw(recursive=True)


def has_own_pids(record: Record) -> bool:
    """Whether the container has a pid namespace made for it."""
    linux = record["spec"].get("linux") or {}
    return any(n["type"] == "pid" and not n.get("path") for n in linux.get("namespaces") or ())


def _kill_everything(record: Record) -> None:
    from sysvisor_runc.cgroup.manager import Manager

    manager = Manager(record["cgroup"]["paths"])
    if not manager.exists() and not is_alive(record["initPid"], record["initStart"]):
        raise NotRunning()
    manager.kill_all(_signal.SIGKILL)

"""`supervisor`: look after the detached containers of a state root; or ask the one that does."""

from __future__ import annotations

import os
import sys

from sysvisor_runc import log
from sysvisor_runc.cli.duration import seconds
from sysvisor_runc.cli.systemd import connect
from sysvisor_runc.errors import SysvisorError, UsageError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

    from sysvisor_runc.cli.parse import Options

# What `run --detach` leaves to a supervisor that it starts; a length of time, or "never".
LINGER = "SYSVISOR_RUNC_LINGER"
_FIRST_FD = 3


def run(options: Options) -> int:
    """Be the supervisor until told to end, unless one of the flags asks for something else."""
    root = os.path.abspath(options.globals.root)
    if options.flag("status"):
        return _status(root)
    if options.flag("stop"):
        return _stop(root)
    if options.text("launcher"):
        return _launcher(root, options)
    if options.flag("resident"):
        return _resident(root)
    return _foreground(root, options)


# ---- ask


def _status(root: str) -> int:
    from sysvisor_runc.jsonlight import dumps
    from sysvisor_runc.launch.tell import ask

    answer, _ = ask(root, {"op": "status"})
    answer.pop("ok")
    sys.stdout.write(dumps(answer, indent=2) + "\n")
    return 0


def _stop(root: str) -> int:
    """Have it end, and wait until it has."""
    from sysvisor_runc.launch.tell import Dialogue

    with Dialogue(root) as dialogue:
        pid = dialogue.ask({"op": "stop"})["pid"]
        if not isinstance(pid, int):
            return 0
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return 0
    from sysvisor_runc.state.process import wait_exit

    try:
        if not wait_exit(pidfd, 10):
            raise SysvisorError(f"the supervisor, process {pid}, does not end", hint="look into its log")
    finally:
        os.close(pidfd)
    return 0


# ---- be


def _launcher(root: str, options: Options) -> int:
    """What the supervisor has started to start containers for it."""
    import _socket

    from sysvisor_runc.aio.netdev import move_devices
    from sysvisor_runc.aio.resident import log_to_file
    from sysvisor_runc.launch.launcher import Launcher

    os.closerange(_FIRST_FD + 1, 1 << 20)
    os.set_inheritable(_FIRST_FD, False)
    _leave_caller()
    log_to_file(root)
    link = _socket.socket(fileno=_FIRST_FD)
    respawn = options.text("launcher") == "respawn"
    Launcher(root, link, connect, move_devices, respawn=respawn).serve()
    if respawn:
        from sysvisor_runc.aio.apart import come_back

        come_back(root)
    return 0


def _resident(root: str) -> int:
    """Started by `run --detach`, which has taken the lock and listens for us."""
    import _socket

    from sysvisor_runc.aio.apart import come_back, go_apart
    from sysvisor_runc.aio.resident import log_to_file
    from sysvisor_runc.launch.supervised import LISTENER_FD, LOCK_FD

    os.closerange(LISTENER_FD + 1, 1 << 20)
    for fd in (LOCK_FD, LISTENER_FD):
        os.set_inheritable(fd, False)
    _leave_caller()
    log_to_file(root)
    go_apart(root)
    given = os.environ.get(LINGER, "2s")
    linger = None if given == "never" else seconds(given)
    if linger is None and given != "never":
        log.warning(f"{LINGER}: {given!r} is no length of time")
        linger = 2.0
    listener = _socket.socket(fileno=LISTENER_FD)
    return _reside(root, LOCK_FD, listener, linger, lambda: come_back(root), activated=False)


def _foreground(root: str, options: Options) -> int:
    """Started by a person or a service manager, which may have the socket already."""
    from sysvisor_runc.launch.room import obtain_lock
    from sysvisor_runc.launch.supervised import listen, open_directory
    from sysvisor_runc.state.store import Store

    linger = _linger(options)
    if log.is_default():
        log.listen(log.to_stderr, "info")
    Store(root).fd(create=True)
    try:
        directory = open_directory(root)
        activated = _activated()
        # A service has the socket already, and who has been started meanwhile cannot be reached any more.
        lock = obtain_lock(directory, insist=activated is not None)
        if lock < 0:
            raise SysvisorError(f"a supervisor looks after {root!r} already", hint="`supervisor --status` shows it")
        listener = activated or listen(root, directory)
        os.close(directory)
    except OSError as error:
        operand = f" {error.filename!r}" if error.filename else ""
        raise SysvisorError(f"listen in {root!r}:{operand} {reason(error)}") from error
    os.chdir("/")
    return _reside(root, lock, listener, linger, lambda: None, activated=activated is not None)


def _linger(options: Options) -> float | None:
    given = options.text("linger")
    if given is None:
        return None
    linger = seconds(given)
    if linger is None or linger < 0:
        raise UsageError(f"--linger: {given!r} is no length of time", hint="such as 2s or 1m30s")
    return linger


def _activated() -> _socket.socket | None:
    """The socket that a service manager listens on for us (FileDescriptorName=control)."""
    import _socket

    from sysvisor_runc.aio.resident import CONTROL
    from sysvisor_runc.kernel.sd_notify import listen_fds

    return next((_socket.socket(fileno=fd) for name, fd in listen_fds() if name == CONTROL), None)


def _leave_caller() -> None:
    """Keep nothing of where we were started busy."""
    os.chdir("/")
    os.umask(0o022)


def _reside(
    root: str,
    lock: int,
    listener: _socket.socket,
    linger: float | None,
    before: Callable[[], None],
    *,
    activated: bool,
) -> int:
    from sysvisor_runc.aio.loop import run as run_loop
    from sysvisor_runc.aio.resident import reside
    from sysvisor_runc.aio.standing import stand

    # What is started again comes to us, so that we may wait for it on any kernel.
    stand("sysvisor-superv")
    try:
        main = reside(root, lock, listener, linger, before, activated=activated)
        return run_loop(main, prefer="uvloop", endures=True)
    except Exception as error:
        # Nobody reads our standard error.
        log.error(f"{type(error).__name__}: {error}")
        before()
        raise

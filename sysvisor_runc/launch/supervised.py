"""Hand a container that `run --detach` has made to the supervisor of its state root, which is started where need be.

    ROOT/@supervisor/           0700
        lock                    flock of the supervisor, for as long as it lives; its pid for people
        control.sock            see launch.tell
        wanted                  see launch.room

Who starts the supervisor takes the lock, listens on the socket, and passes both on to it: so requests can be sent at
once, and of many starters one wins. The program starts anew rather than forking: it keeps nothing of the command.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import sys
import time

from sysvisor_runc import log
from sysvisor_runc.errors import LaunchError, SysvisorError, reason
from sysvisor_runc.launch.tell import DIRECTORY, SOCKET, Dialogue, NoSupervisor, SupervisorError, with_path
from sysvisor_runc.state import supervision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.launch.create import Created
    from sysvisor_runc.launch.request import Request
    from sysvisor_runc.state.supervision import Restart

LOCK = "lock"
# Where a started supervisor finds what it is handed.
LOCK_FD, LISTENER_FD = 3, 4
_BACKLOG = 1024
# How long a hand-over may take that must succeed, and one that need not.
_PATIENCE = 15.0
_HASTE = 2.0
# Of our environment the supervisor gets no more: it outlives what the rest is about.
_KEPT = ("PATH", "HOME", "USER", "LANG", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "SYSVISOR_RUNC_LOOP")
_FIRST_FREE = 10


def begin(created: Created, request: Request, restart: Restart | None) -> bool:
    """Note that the container is a supervised one, and how it is started again; whether it has to be taken over.

    Raises:
        SysvisorError: it cannot be started again as its restart policy wants.
    """
    if restart is None:
        text = created.record["annotations"].get(supervision.ANNOTATION, "no")
        restart = supervision.parse_policy(text, None, f"annotation {supervision.ANNOTATION}")
    if restart["policy"] != "no":
        from sysvisor_runc.launch.restartable import refuse_foreign, store_request

        refuse_foreign(request)
        store_request(created, request)
    try:
        supervision.save(created.entry, supervision.new_supervision(restart))
    except OSError as error:
        raise created.entry.unwritable(error) from error
    return restart["policy"] != "no" or created.console >= 0


def hand_over(root: str, container_id: str, pidfd: int, console: int, *, must: bool) -> None:
    """Let the supervisor look after the container from here on; closes `console`.

    Where it `must`, its answer is waited for; else the request is sent, and what becomes of it is in its log.

    Raises:
        SysvisorError: it must, and does not.
    """
    fds = [pidfd] if console < 0 else [pidfd, console]
    request: dict[str, object] = {"op": "adopt", "id": container_id}
    try:
        with reached_supervisor(root, _PATIENCE if must else _HASTE) as dialogue:
            if must:
                dialogue.ask(request, fds)
            else:
                dialogue.post(request, fds)
    except SysvisorError as error:
        if must:
            raise
        log.warning(f"container {container_id!r} runs without a supervisor: {error}")
    finally:
        if console >= 0:
            os.close(console)


def reached_supervisor(root: str, patience: float) -> Dialogue:
    """A connection to the supervisor, started if there is none.

    Raises:
        SysvisorError: it cannot be started, or does not listen.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return Dialogue(root, timeout=patience)
        except NoSupervisor:
            pass
        if start(root):
            continue
        if time.monotonic() >= deadline:
            hint = "`supervisor --status` looks for it; a stopped one may be killed, which harms no container"
            raise SupervisorError(f"the supervisor of {root!r} has its lock but does not listen", hint=hint)
        time.sleep(0.005)  # another command starts one, or one is about to end


def start(root: str) -> bool:
    """Start a supervisor; False where there is one already, which may not listen yet, or no more.

    Raises:
        LaunchError: it cannot be started.
    """
    try:
        directory = open_directory(root)
        try:
            lock = take_lock(directory)
            if lock < 0:
                return False
            try:
                listener = listen(root, directory)
                try:
                    _spawn(root, lock, listener.fileno())
                finally:
                    listener.close()
            finally:
                os.close(lock)
        finally:
            os.close(directory)
    except OSError as error:
        operand = f" {error.filename!r}" if error.filename else ""
        raise LaunchError(f"start a supervisor for {root!r}:{operand} {reason(error)}") from error
    return True


def open_directory(root: str) -> int:
    """The supervisor's directory in the state root, made where missing. Raises OSError."""
    path = f"{os.path.abspath(root)}/{DIRECTORY}"
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(directory)
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        os.close(directory)
        raise PermissionError(13, "others may write to it", path)
    return directory


def take_lock(directory: int) -> int:
    """The supervisor's lock, held as long as the descriptor is open anywhere; -1: another has it. Raises OSError."""
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return -1
    return lock


def listen(root: str, directory: int) -> _socket.socket:
    """Listen on the control socket, in the place of one that was left behind; for who has the lock. Raises OSError."""
    try:
        os.unlink(SOCKET, dir_fd=directory)
    except FileNotFoundError:
        pass
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        with_path(root, listener.bind)
        os.chmod(SOCKET, 0o600, dir_fd=directory)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def program() -> list[str]:
    """The command line that started this program, up to its own arguments."""
    argv = sys.orig_argv
    script = argv.index(sys.argv[0]) if sys.argv[0] in argv else 0
    # By its path: a name would be looked up in a directory of somebody else's choosing.
    return [sys.executable, *argv[1:script], os.path.abspath(sys.argv[0])]


def _spawn(root: str, lock: int, listener: int) -> None:
    spawn([*program(), "--root", os.path.abspath(root), "supervisor", "--resident"], [lock, listener])


def spawn(argv: list[str], fds: list[int]) -> int:
    """Start a program in a session of its own, with `fds` from 3 on; its pid. Raises OSError."""
    # Out of the way of where they go.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE) for fd in fds]
    actions: list[tuple[object, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 0, 1),
        (os.POSIX_SPAWN_DUP2, 0, 2),
        *((os.POSIX_SPAWN_DUP2, fd, 3 + place) for place, fd in enumerate(high)),
    ]
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    try:
        return os.posix_spawn(
            argv[0],
            argv,
            environment,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=[n for n in range(1, 32) if n not in (9, 19)],
        )
    finally:
        for fd in high:
            os.close(fd)

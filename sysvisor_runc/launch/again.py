"""Start a container again, as its restart policy wants.

The start is that of `run`, with the configuration as it was at the first one, in the same place: the same directory,
ids and cgroup paths. It is made by a process that nobody else is in (launch.launcher).
"""

from __future__ import annotations

import os

from sysvisor_runc.launch import destroy
from sysvisor_runc.launch.create import create
from sysvisor_runc.launch.inherited import take_on
from sysvisor_runc.launch.release import release
from sysvisor_runc.launch.request import Again, Request
from sysvisor_runc.launch.restartable import FS_VARIABLES, load_request
from sysvisor_runc.launch.supervised import hand_over, program
from sysvisor_runc.launch.undo import UndoStack
from sysvisor_runc.state import supervision
from sysvisor_runc.state.observe import observe
from sysvisor_runc.state.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.cgroup.systemd import Connect
    from sysvisor_runc.spec.types import LinuxResources
    from sysvisor_runc.state.record import Record
    from sysvisor_runc.state.store import Entry


def start_again(
    root: str,
    container_id: str,
    init: tuple[int, int],
    connect: Connect,
    move_devices: Callable[[dict[str, str], int], Callable[[], object]],
) -> bool:
    """Start a container whose init, pid and start time `init`, has ended; False where that is not to be done any more.

    It changes the calling process for good: standard streams, umask, environment, limits.

    Raises:
        SysvisorError: it could not be started; it is as stopped as it was.
    """
    with Store(root).open(container_id) as entry, entry.lock():
        record = entry.load()
        if (record["initPid"], record["initStart"]) != init or observe(entry, record) != "stopped":
            return False  # somebody else has started it
        if supervision.stop_asked(entry):
            return False
        try:
            _start(root, entry, record, load_request(entry), connect, move_devices)
        except _StopAsked:
            return False
    return True


class _StopAsked(Exception):
    """Somebody has asked for the container's end while it was being started."""


def _start(
    root: str,
    entry: Entry,
    record: Record,
    stored: dict[str, object],
    connect: Connect,
    move_devices: Callable[[dict[str, str], int], Callable[[], object]],
) -> None:
    destroy.dismantle(record, connect, force=True)
    if "sysvisorFs" in record:
        from sysvisor_runc.launch.fsend import unregister

        unregister(record["sysvisorFs"], record["id"], root, None)
    destroy.poststop(record)
    request = _request(root, record, stored)
    request.connect_systemd = connect
    request.move_devices = move_devices
    request.again = Again(entry, _current(stored["spec"], record), record)  # type: ignore[arg-type]  # as stored
    _open_stdio(stored.get("stdio"))
    _set_environment(stored.get("fsEnvironment"))
    take_on(stored.get("inherited"))
    with UndoStack() as undo:
        undo.push("record", lambda: entry.save(record))
        created = create(request, undo)
        # Until the new init was on record a `kill` found nobody to send its signal to; from here on it finds that one.
        if supervision.stop_asked(entry):
            raise _StopAsked
        release(created)
        hand_over(root, entry.id, created.child.pidfd, created.console, must=True)
        undo.keep()


def _request(root: str, record: Record, stored: dict[str, object]) -> Request:
    flags = record["flags"]
    request = Request(root, record["id"], record["bundle"], flags)
    request.immediate = True
    request.keeps_console = True
    request.syscont = record["syscont"]
    request.systemd_cgroup = bool(stored.get("systemdCgroup"))
    request.fs = "sysvisorFs" in record
    request.fs_program = os.path.join(os.path.dirname(os.path.realpath(program()[-1])), "sysvisor-fs")
    rootless = stored.get("rootless")
    request.rootless = rootless if isinstance(rootless, bool) else None
    request.no_pivot = flags.get("noPivot", False)
    request.no_new_keyring = flags.get("noNewKeyring", False)
    request.pid_file = str(stored.get("pidFile") or "")
    request.uid_shift = str(stored.get("uidShift") or "idmap")
    credentials = stored.get("credentials")
    if isinstance(credentials, dict):
        request.credentials = {name: bytes.fromhex(data) for name, data in credentials.items()}
    return request


def _current(spec: object, record: Record) -> object:
    """The configuration with the limits that `update` has changed since, and the cgroup where it was."""
    if not isinstance(spec, dict):
        return spec
    linux = dict(spec.get("linux") or {})
    now: LinuxResources = (record["spec"].get("linux") or {}).get("resources") or {}
    before = linux.get("resources") or {}
    linux["resources"] = (
        {**now, "devices": before["devices"]}
        if "devices" in before
        else {key: value for key, value in now.items() if key != "devices"}
    )
    return {**spec, "linux": linux}


def _set_environment(variables: object) -> None:
    """The variables that led the first start to its sysvisor-fs: ours are the supervisor's, who has none or others."""
    for name in [name for name in os.environ if name.startswith(FS_VARIABLES)]:
        os.environ.pop(name)
    for name, value in (variables if isinstance(variables, dict) else {}).items():
        os.environ[name] = str(value)


def _open_stdio(described: object) -> None:
    """Standard streams as they were, where they were files and still are the same; /dev/null for all others."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    found = described if isinstance(described, list) else []
    for fd in (0, 1, 2):
        source = _reopened(found[fd]) if fd < len(found) else -1
        os.dup2(null if source < 0 else source, fd, inheritable=True)
        if source >= 0:
            os.close(source)
    os.close(null)


def _reopened(described: object) -> int:
    if not isinstance(described, list) or len(described) != 4:
        return -1
    path, flags, device, inode = described
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    if flags & os.O_ACCMODE != os.O_RDONLY:
        flags |= os.O_APPEND  # what is there already is the first run's
    try:
        fd = os.open(path, flags)
    except (OSError, ValueError):
        return -1
    opened = os.fstat(fd)
    # Whoever may write to its directory could have put another file there.
    if (opened.st_dev, opened.st_ino) != (device, inode):
        os.close(fd)
        return -1
    os.set_blocking(fd, True)
    return fd

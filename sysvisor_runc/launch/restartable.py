"""What makes it possible to start a container again: where that is refused, and what is stored for it.

ID/again.json   0600: the configuration before its conversion and what the command line asked for
"""

from __future__ import annotations

import os
import stat

from sysvisor_runc.errors import LaunchError, StateError, reason
from sysvisor_runc.state import supervision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.launch.create import Created
    from sysvisor_runc.launch.request import Request
    from sysvisor_runc.state.store import Entry

FILE = "again.json"
# What leads a launch to its sysvisor-fs.
FS_VARIABLES = "SYSVISOR_FS_"
_FILE_MAX = 64 << 20


def refuse_foreign(request: Request) -> None:
    """Refuse to start containers again behind the back of whoever waits for their init.

    Init's parent will be the caller's nearest subreaper. Where that is pid 1, or a service manager, it takes what it
    gets; where it is the caller itself, that has started us to be the parent. A service manager waits for init too
    if we are the start of a service of type forking: it has started us itself, or reads our pid file.

    Raises:
        LaunchError: somebody else looks after the init.
    """
    for given, what in (
        (request.console_socket, "--console-socket: the next terminal would have nobody to go to"),
        (request.preserve_fds, "--preserve-fds: the descriptors are there only once"),
    ):
        if given:
            raise LaunchError(f"--restart cannot be used with {what}")
    if os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid()) or (request.pid_file and "INVOCATION_ID" in os.environ):
        raise LaunchError(
            "--restart is refused: this is the start of a systemd service, which waits for the container's init",
            hint="use the unit's Restart= instead",
        )
    parent = os.getppid()
    if parent != 1 and reaper() == parent:
        raise LaunchError(
            f"--restart is refused: the container's init belongs to process {parent} ({_name(parent)}), its subreaper",
            hint="let that start the container again",
        )


def reaper() -> int:
    """The process that inherits what we leave behind: the nearest subreaper, or pid 1; 0 for one that we cannot see.

    Nothing tells who is a subreaper, so an orphan is made that looks at its parent.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        middle = os.getpid()
        if os.fork() == 0:
            from time import sleep

            while os.getppid() == middle:
                sleep(0.0005)
            os.write(writing, str(os.getppid()).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    try:
        return int(os.read(reading, 32) or b"0")
    finally:
        os.close(reading)


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "?"


def store_request(created: Created, request: Request) -> None:
    """Store what a start needs, beside the record. Raises StateError."""
    from sysvisor_runc.jsonlight import dumps
    from sysvisor_runc.launch.inherited import seen

    value: dict[str, object] = {
        "spec": created.given,
        "credentials": {name: data.hex() for name, data in request.credentials.items()},
        "uidShift": request.uid_shift,
        "systemdCgroup": request.systemd_cgroup,
        "rootless": request.rootless,
        "pidFile": os.path.abspath(request.pid_file) if request.pid_file else "",
        "stdio": [_described(fd) for fd in (0, 1, 2)],
        "inherited": seen(),
        "fsEnvironment": {name: value for name, value in os.environ.items() if name.startswith(FS_VARIABLES)},
    }
    try:
        supervision.write(created.entry, FILE, dumps(value).encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise created.entry.unwritable(error) from error


def _described(fd: int) -> list[object] | None:
    """A standard stream that can be opened again by its name: a file; with what tells it from another of that name."""
    import fcntl

    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return None
        flags = fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_APPEND)
        return [os.readlink(f"/proc/self/fd/{fd}"), flags, found.st_dev, found.st_ino]
    except OSError:
        return None


def load_request(entry: Entry) -> dict[str, object]:
    """What `store_request` has stored. Raises StateError."""
    from sysvisor_runc.jsonlight import loads

    try:
        fd = os.open(FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=entry.dirfd)
        with open(fd, "rb") as file:
            value = loads(file.read(_FILE_MAX))
    except OSError as error:
        raise StateError(f"read {entry.path}/{FILE}: {reason(error)}") from error
    except ValueError as error:
        raise StateError(f"{entry.path}/{FILE} is not readable: {error}") from error
    if not isinstance(value, dict) or not isinstance(value.get("spec"), dict):
        raise StateError(f"{entry.path}/{FILE} is no stored request")
    return value

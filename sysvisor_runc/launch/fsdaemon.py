"""Start sysvisor-fs where nobody has: under a lock, detached, in a cgroup of its own. Loaded only for that."""

from __future__ import annotations

import fcntl
import os
import time

from sysvisor_runc.cgroup.layout import detect
from sysvisor_runc.contract import names
from sysvisor_runc.errors import LaunchError, reason
from sysvisor_runc.kernel.signals import reset_signals
from sysvisor_runc.kernel.syscall import syscall
from sysvisor_runc.launch.fscontrol import connect
from sysvisor_runc.launch.interrupt import check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sysvisor_runc.errors import SysvisorError
    from sysvisor_runc.launch.fscontrol import Connection

_PATIENCE = 5.0
_TICK = 0.01
_SIGKILL = 9
_LOCK = "start.lock"
_CGROUP = "sysvisor-fs"
# Its share of the CPUs, four times what everybody has by default: all who read wait for it. File, default, ours.
_WEIGHTS = (("cpu.shares", b"1024", b"4096"), ("cpu.weight", b"100", b"400"))
_UNIT = "sysvisor-fs.service"
_UNIT_PLACES = (
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)


def start(directory: str, program: str) -> Connection:
    """A connection to the daemon of `directory`, started if need be; `program` is its path.

    Raises:
        LaunchError: it does not come up.
    """
    deadline = time.monotonic() + _PATIENCE
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        lock = os.open(f"{directory}/{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _cannot(directory, f"{directory!r}: {reason(error)}") from error
    try:
        _wait_for_lock(lock, directory, deadline)
        link = connect(directory)  # another launch may have started it meanwhile
        if link is None and directory == names.RUN_DIR and _have_unit():
            link = _start_unit(directory, deadline)
        return link or _spawn(directory, program, deadline)
    finally:
        os.close(lock)


def _cannot(directory: str, why: str) -> SysvisorError:
    hint = f"see {directory}/{names.LOG_FILE}, or do without: --no-sysvisor-fs"
    return LaunchError(f"cannot start sysvisor-fs: {why}", hint=hint)


def _wait_for_lock(lock: int, directory: str, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise _cannot(directory, "another launch has been starting it for too long") from None
        _pause()


def _pause() -> None:
    check()
    time.sleep(_TICK)


def _have_unit() -> bool:
    return os.path.isdir("/run/systemd/system") and any(os.path.exists(f"{place}/{_UNIT}") for place in _UNIT_PLACES)


def _start_unit(directory: str, deadline: float) -> Connection | None:
    """Have systemd start it; None where it will not."""
    from sysvisor_runc.launch.spawn import run_program

    try:
        run_program(["systemctl", "start", "--no-block", "--quiet", _UNIT])
    except OSError:
        return None
    while time.monotonic() < deadline:
        link = connect(directory)
        if link is not None:
            return link
        _pause()
    raise LaunchError(
        f"cannot start sysvisor-fs: {_UNIT} does not come up",
        hint=f"see journalctl -u {_UNIT}, or do without: --no-sysvisor-fs",
    )


def _spawn(directory: str, program: str, deadline: float) -> Connection:
    if not os.access(program, os.X_OK):
        raise _cannot(directory, f"{program!r} is not there")
    pid = os.fork()
    if pid == 0:
        _become_daemon(directory, program)
    try:
        while True:
            link = connect(directory)
            if link is not None:
                return link
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                raise _cannot(directory, f"it ended with exit code {os.waitstatus_to_exitcode(status)}")
            if time.monotonic() > deadline:
                raise _cannot(directory, f"it is not ready within {_PATIENCE:g} s")
            _pause()
    except BaseException:
        _end(pid)
        raise


def _end(pid: int) -> None:
    """Kill what we have started, with its session."""
    try:
        os.killpg(pid, _SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def _become_daemon(directory: str, program: str) -> NoReturn:
    try:
        os.setsid()
        reset_signals()
        _leave_cgroup()
        null = os.open("/dev/null", os.O_RDONLY)
        output = os.open(f"{directory}/{names.LOG_FILE}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        syscall("close_range", 3, 0xFFFFFFFF, 0)
        os.chdir("/")
        os.umask(0o022)
        kept = {key: value for key, value in os.environ.items() if key.startswith(("SYSVISOR_FS_", "LANG", "LC_"))}
        os.execve(program, [program, "--run-dir", directory], {"PATH": os.defpath, **kept})
    finally:
        os._exit(127)


def _leave_cgroup() -> None:
    """Into cgroups of its own: the caller's may be frozen, limited or removed while it serves everybody."""
    layout = detect()
    tops = [hierarchy.mountpoint for hierarchy in layout.v1]
    if layout.unified:
        tops.append(layout.unified.mountpoint)
    for top in tops:
        try:
            os.makedirs(f"{top}/{_CGROUP}", exist_ok=True)
            _fill_cpuset(top)
            with open(f"{top}/{_CGROUP}/cgroup.procs", "wb", buffering=0) as file:
                file.write(b"0")
            _give_weight(f"{top}/{_CGROUP}")
        except OSError:
            pass  # not ours to manage: it stays where it is


def _give_weight(cgroup: str) -> None:
    """What somebody else has chosen stays."""
    for name, default, ours in _WEIGHTS:
        path = f"{cgroup}/{name}"
        if os.path.exists(path):
            with open(path, "rb") as file:
                if file.read().strip() != default:
                    continue
            with open(path, "wb", buffering=0) as file:
                file.write(ours)


def _fill_cpuset(top: str) -> None:
    """A new v1 cpuset is empty and takes nobody until it has CPUs and memory nodes. On v2 the top has no such files."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if os.path.exists(f"{top}/{name}"):
            with open(f"{top}/{name}", "rb") as above, open(f"{top}/{_CGROUP}/{name}", "wb", buffering=0) as file:
                file.write(above.read())

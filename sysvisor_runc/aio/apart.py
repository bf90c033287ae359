"""The supervisor's place of its own: away from whoever happened to start it, so that it does not end with them.

A service manager ends a unit by its cgroup, and a limit of that cgroup would be ours as well. So the supervisor goes
into a scope of its own where systemd runs, and into a cgroup of its own below the top of every other hierarchy.
"""

from __future__ import annotations

import os

from sysvisor_runc import log
from sysvisor_runc.cgroup.layout import detect
from sysvisor_runc.errors import SysvisorError
from sysvisor_runc.kernel.file import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.layout import Hierarchy
    from sysvisor_runc.cgroup.unit import Property

_BOOTED = "/run/systemd/system"
_NAME = "sysvisor-supervisor"


def go_apart(root: str) -> None:
    """Leave the caller's cgroups. What cannot be left is logged."""
    name = _name(root)
    try:
        hierarchies = detect().by_controller()
    except SysvisorError as error:
        log.debug(f"cgroups: {error}")
        return
    if os.path.isdir(_BOOTED) and _enter_scope(name):
        # What systemd has put into the scope is done; on v1 the controllers that it does not use are not.
        hierarchies = {key: h for key, h in detect().by_controller().items() if not h.own.endswith(".scope")}
    for hierarchy in {h.mountpoint: h for h in hierarchies.values()}.values():
        path = f"{hierarchy.mountpoint}/{name}"
        try:
            _enter(hierarchy, path)
        except OSError as error:
            log.debug(f"join {path}: {error}")


def come_back(root: str) -> None:
    """Leave the cgroups that were made for us and remove them, unless somebody is left in them: who goes last does it.

    That is the supervisor or its launcher.
    """
    name = _name(root)
    for hierarchy in {h.mountpoint: h for h in detect().by_controller().values()}.values():
        path = f"{hierarchy.mountpoint}/{name}"
        if not os.path.isdir(path):
            continue
        try:
            if hierarchy.own == path:
                alone = len(os.listdir("/proc/self/task")) == 1
                write(_members(hierarchy.mountpoint) if alone else f"{hierarchy.mountpoint}/cgroup.procs", "0")
            os.rmdir(path)
        except OSError as error:
            log.debug(f"leave {path}: {error}")


def _name(root: str) -> str:
    return f"{_NAME}-{_digest(root):08x}"


def _digest(root: str) -> int:
    """Of the state root's path, which may hold what no cgroup can be called (FNV-1a)."""
    value = 0x811C9DC5
    for byte in os.fsencode(os.path.abspath(root)):
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def _enter(hierarchy: Hierarchy, path: str) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        pass
    # A v1 cpuset is empty at first, and then nobody gets in (cpusets(7)). On v2 the top has no such files.
    for file in ("cpuset.cpus", "cpuset.mems"):
        if os.path.exists(f"{hierarchy.mountpoint}/{file}"):
            with open(f"{hierarchy.mountpoint}/{file}", encoding="ascii") as above:
                write(f"{path}/{file}", above.read().strip())
    write(_members(path), "0")


def _members(path: str) -> str:
    """The file to join by: on v1 the one that moves a single thread, which takes no lock of the whole machine."""
    tasks = f"{path}/tasks"
    return tasks if os.path.exists(tasks) else f"{path}/cgroup.procs"


def _enter_scope(name: str) -> bool:
    """Have systemd make a scope with us in it; whether that is done."""
    from sysvisor_runc.aio.systemd import connect
    from sysvisor_runc.cgroup.systemd import UnitExists, wants_user_manager

    try:
        systemd = connect(wants_user_manager(None))
        try:
            properties: list[Property] = [
                ("Description", ("s", "sysvisor-runc supervisor")),
                ("PIDs", ("au", [os.getpid()])),
                ("CollectMode", ("s", "inactive-or-failed")),
            ]
            try:
                systemd.start(f"{name}.scope", properties)
            except UnitExists:
                # Of a supervisor that was killed: its launcher may still be in there.
                systemd.start(f"{name}-{os.getpid()}.scope", properties)
        finally:
            systemd.close()
    except SysvisorError as error:
        log.warning(f"no scope of our own: {error}")
        return False
    return True

"""Whether the kernel has killed a process of a container for want of memory. Loaded when an init died silently."""

from __future__ import annotations

from sysvisor_runc.cgroup.file import read_if_there
from sysvisor_runc.cgroup.layout import UNIFIED
from sysvisor_runc.errors import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.manager import Manager


def explain(manager: Manager, error: LaunchError) -> LaunchError:
    """`error`, or a better one if the memory limit is to blame."""
    if not was_killed(manager):
        return error
    return LaunchError(
        "unable to start container process: container init was OOM-killed (memory limit too low?)",
        hint="the way to the program takes some 20 MiB",
    )


def was_killed(manager: Manager) -> bool:
    """By the count in v1's memory.oom_control (since Linux 4.13) or v2's memory.events; False where there is none."""
    key, file = (UNIFIED, "memory.events") if manager.v2 else ("memory", "memory.oom_control")
    # v1 counts where the killed process was, not above.
    return any(_counted(f"{paths[key]}/{file}") for paths in (manager.paths, manager.exec_paths()) if key in paths)


def _counted(file: str) -> bool:
    try:
        text = read_if_there(file) or ""
    except OSError:
        return False
    return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in text.splitlines())

"""Whether the kernel has killed a process of a container for want of memory. Loaded when an init has died of something."""

from __future__ import annotations

from sysvisor_runc.cgroup.file import read_if_there
from sysvisor_runc.cgroup.layout import UNIFIED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.manager import Manager


def was_killed(manager: Manager) -> bool:
    """The count in v1's memory.oom_control (since Linux 4.13), or v2's memory.events; False where neither can be read."""
    path = manager.paths.get(UNIFIED if manager.v2 else "memory")
    if path is None:
        return False
    try:
        text = read_if_there(f"{path}/{'memory.events' if manager.v2 else 'memory.oom_control'}") or ""
    except OSError:
        return False
    return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in text.splitlines())

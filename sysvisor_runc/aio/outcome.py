"""How a container ended: what its init's wait status means, and whether the kernel killed it for want of memory."""

from __future__ import annotations

from sysvisor_runc.cgroup.oom import was_killed
from sysvisor_runc.errors import SysvisorError
from sysvisor_runc.launch.destroy import manager_of
from sysvisor_runc.supervise import Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.state.store import Store

# As an init says by its signal what the machine wants (reboot(2) in a pid namespace): power off, or start again.
_ENDS = {2: 0, 1: 133}


def outcome(store: Store, container_id: str, status: int, *, machine: bool) -> Outcome:
    """What `status`, as wait(2) tells it, says of the container; `machine`: its init is an init system."""
    signal = status & 0x7F
    if not signal:
        return Outcome(status >> 8 & 0xFF)
    if machine and signal in _ENDS:
        return Outcome(_ENDS[signal], signal)
    return Outcome(128 + signal, signal, oom=signal == 9 and _was_oom(store, container_id))


def _was_oom(store: Store, container_id: str) -> bool:
    try:
        with store.open(container_id) as entry:
            return was_killed(manager_of(entry.load()))
    except (SysvisorError, OSError):
        return False  # deleted already

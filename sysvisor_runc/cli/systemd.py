"""How the commands reach systemd: they hand `connect` to the layers below, which may not import aio."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.systemd import ServiceManager


def connect(user: bool) -> ServiceManager:
    """A connection to the machine's service manager, or to the caller's own. Raises CgroupError."""
    from sysvisor_runc.aio.systemd import connect as connect_now

    return connect_now(user)

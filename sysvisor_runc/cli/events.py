"""`sysvisor-runc events`: the command line is understood, the rest is still to come."""

from __future__ import annotations

from sysvisor_runc.errors import SysvisorError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.parse import Options


def run(options: Options) -> int:
    """Say that it cannot be done yet."""
    raise SysvisorError(
        f"{options.verb} is not supported yet", hint="read the container's cgroup under /sys/fs/cgroup instead"
    )

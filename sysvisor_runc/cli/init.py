"""`init`: a name that runc's callers know. Here the container's init is cloned by `create` and `run` themselves."""

from __future__ import annotations

from sysvisor_runc.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.parse import Options


def run(options: Options) -> int:
    """Refuse: there is nothing to be started by hand."""
    raise UsageError("init is not a command to be run", hint="create and run start the container's init themselves")

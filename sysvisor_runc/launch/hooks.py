"""The hooks that run in the runtime's own namespaces, and the state that every hook reads from its stdin."""

from __future__ import annotations

from sysvisor_runc import log
from sysvisor_runc.child.hook import HookError, run_hook
from sysvisor_runc.errors import LaunchError
from sysvisor_runc.launch.interrupt import check, descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.child.hook import Hook


def run_hooks(hooks: list[Hook], state: bytes) -> None:
    """Run them in order.

    Raises:
        LaunchError: one failed; the others are not run.
    """
    for hook in hooks:
        log.debug(hook.describe())
        try:
            run_hook(hook, state, abort=descriptor())
        except HookError as error:
            check()
            raise LaunchError(str(error)) from error


def run_hooks_tolerantly(hooks: list[Hook], state: bytes) -> None:
    """Run them all; a failure is a warning (poststop, runtime.md "Lifecycle")."""
    for hook in hooks:
        try:
            run_hook(hook, state, abort=descriptor())
        except HookError as error:
            check()
            log.warning(str(error))

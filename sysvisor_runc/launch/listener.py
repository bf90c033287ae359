"""Hand a seccomp listener to the agent that `listenerPath` names (runtime-spec, "Seccomp listener")."""

from __future__ import annotations

import os

from sysvisor_runc.errors import LaunchError, SysvisorError
from sysvisor_runc.jsonlight import dumps
from sysvisor_runc.kernel.pidfd import pidfd_getfd
from sysvisor_runc.launch.handover import send_descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.launch.child import Child
    from sysvisor_runc.plan.seccomp import Filter


def hand_over(seccomp: Filter, child: Child, number: int, state: dict[str, object]) -> None:
    """Take descriptor `number` out of `child` and send it with the ContainerProcessState.

    Raises:
        LaunchError: `failed to connect with seccomp agent`, or the descriptor cannot be taken.
    """
    message: dict[str, object] = {
        "ociVersion": state["ociVersion"],
        "fds": ["seccompFd"],
        "pid": child.pid,
        "metadata": seccomp.listener_metadata,
        "state": state,
    }
    fd = pidfd_getfd(child.pidfd, number)
    try:
        send_descriptor(seccomp.listener_path, fd, dumps(message).encode(), "linux.seccomp.listenerPath")
    except SysvisorError as error:
        raise LaunchError(f"failed to connect with seccomp agent: {error.message}", hint=error.hint) from error
    finally:
        os.close(fd)

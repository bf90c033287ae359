"""Hand a seccomp listener to the agent that `listenerPath` names (runtime-spec, "Seccomp listener")."""

from __future__ import annotations

import os

from sysvisor_runc.errors import LaunchError, SysvisorError
from sysvisor_runc.jsonlight import dumps, loads
from sysvisor_runc.kernel.pidfd import pidfd_getfd
from sysvisor_runc.launch.handover import send_descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.launch.child import Child
    from sysvisor_runc.plan.seccomp_cache import Filter


def hand_over(seccomp: Filter | None, child: Child, payload: bytes, state: bytes) -> None:
    """Take the descriptor that `payload` numbers out of `child` and send it with the ContainerProcessState.

    `state` is the container's, as JSON.

    Raises:
        LaunchError: `failed to connect with seccomp agent`, or there is no filter that has one.
    """
    if seccomp is None:
        raise LaunchError("the process announced a seccomp listener that nobody asked for")
    shown = loads(state)
    assert isinstance(shown, dict)
    message: dict[str, object] = {
        "ociVersion": shown["ociVersion"],
        "fds": ["seccompFd"],
        "pid": child.pid,
        "metadata": seccomp.listener_metadata,
        "state": shown,
    }
    fd = pidfd_getfd(child.pidfd, int.from_bytes(payload, "little"))
    try:
        send_descriptor(seccomp.listener_path, fd, dumps(message).encode(), "linux.seccomp.listenerPath")
    except SysvisorError as error:
        raise LaunchError(f"failed to connect with seccomp agent: {error.message}", hint=error.hint) from error
    finally:
        os.close(fd)

"""Bring the child into being by clone3, or where namespaces are joined by path, through a first stage."""

from __future__ import annotations

import os

from sysvisor_runc.child import main as child_main
from sysvisor_runc.errors import LaunchError
from sysvisor_runc.kernel import namespaces as ns
from sysvisor_runc.kernel.signals import reset_signals
from sysvisor_runc.launch.child import Child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sysvisor_runc.child.channel import Channel
    from sysvisor_runc.child.main import Wiring
    from sysvisor_runc.plan.plan import Plan


def clone_child(plan: Plan, wiring: Wiring, cgroup_fd: int | None, close_in_child: list[int], host: Channel) -> Child:
    """Clone the container's first process, which waits for GO on its channel.

    `close_in_child` are descriptors of the host's that must not be open there: the lock, the host's end.

    Raises:
        LaunchError: a namespace cannot be made or joined.
    """
    try:
        if plan.join:
            from sysvisor_runc.launch.firststage import through_first_stage

            return through_first_stage(plan, wiring, cgroup_fd, lambda: _child(plan, wiring, close_in_child), host)
        pid, pidfd = ns.clone3(plan.clone_flags, cgroup_fd=cgroup_fd, owner=plan.owner)
    except OSError as error:
        raise LaunchError(f"unable to start container process: {error}", hint=_hint(error)) from error
    if pid == 0:
        _child(plan, wiring, close_in_child)
    return Child(pid, pidfd)


def _child(plan: Plan, wiring: Wiring, close_in_child: list[int]) -> NoReturn:
    try:
        reset_signals()
        for fd in close_in_child:
            os.close(fd)
        child_main.run(plan.child, wiring)
    finally:
        os._exit(1)


def _hint(error: OSError) -> str | None:
    if error.errno == 28:  # ENOSPC
        return "raise /proc/sys/user/max_*_namespaces"
    if error.errno == 11:  # EAGAIN
        return "the limit on processes is reached: ulimit -u, or pids.max of a cgroup"
    if error.errno == 1:  # EPERM
        if os.geteuid() == 0:
            return "no user namespace can be made in a chroot, nor behind the filter of a container engine"
        return "run as root, or allow unprivileged user namespaces (kernel.unprivileged_userns_clone)"
    return None

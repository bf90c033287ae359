"""A visit of the calling thread to a network, IPC or UTS namespace.

Two setns(2), about 2 µs: nothing is forked, and no thread stays behind to keep a container's network alive. Threads may
do this by themselves; user and mount namespaces need a process (`deputy`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sysvisor_fs.passthrough import identity
from sysvisor_runc import log
from sysvisor_runc.kernel import namespaces as ns
from sysvisor_runc.kernel.syscall import buffer, syscall

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Answer = TypeVar("Answer")

FLAGS = {"net": ns.CLONE_NEWNET, "ipc": ns.CLONE_NEWIPC, "uts": ns.CLONE_NEWUTS}
# struct __user_cap_header_struct: version, pid (0: this thread); two of __user_cap_data_struct: effective, permitted,
# inheritable, the low 32 capabilities first (capset(2)).
_CAPABILITY_VERSION_3 = 0x20080522
_HELD_BACK = 1 << identity.CAP_NET_ADMIN | 1 << 16  # CAP_SYS_MODULE
_home: dict[str, int] = {}


def _way_back(kind: str) -> int:
    """The daemon's own namespace, opened once, when every thread is still in it."""
    fd = _home.get(kind)
    if fd is None:
        fd = _home.setdefault(kind, identity.open_namespace(os.getpid(), kind))
    return fd


def inside(namespace: int, kind: str, action: Callable[[], Answer]) -> Answer:
    """What `action` returns when done in a namespace, by descriptor. It must not wait for long."""
    back = _way_back(kind)
    ns.setns(namespace, FLAGS[kind], operand=kind)
    try:
        return action()
    finally:
        try:
            ns.setns(back, FLAGS[kind], operand=kind)
        except OSError as error:
            # A thread that is lost in a container would answer others from there: better none than that.
            log.error(f"cannot return from a {kind} namespace: {error}")
            os._exit(70)


def as_owner(action: Callable[[], Answer]) -> Answer:
    """Do it without CAP_NET_ADMIN and CAP_SYS_MODULE over the host, in this thread.

    For writes whose handlers ask for them: in a namespace of a container the daemon has them still, being the owner of
    its user namespace (cap_capable()); over the host, where the kernel would load a module for them, it has not.
    """
    return without(_HELD_BACK, action)


def without(capabilities: int, action: Callable[[], Answer]) -> Answer:
    """Do it without these capabilities of the low 32, in this thread."""
    head = _CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4)
    sets = buffer(24)
    syscall("capget", head, sets, operand="")
    before = bytes(sets)
    effective = int.from_bytes(before[:4], "little") & ~capabilities
    syscall("capset", head, effective.to_bytes(4, "little") + before[4:], operand="")
    try:
        return action()
    finally:
        syscall("capset", head, before, operand="")


def as_uid(uid: int, action: Callable[[], Answer]) -> Answer:
    """Do it with another effective user id, in this thread alone: the system call, not the C library's function.

    IPC sysctls are written by the root of a user namespace, be it without capabilities (ipc_permissions(), Linux 6.10),
    and not by the host's. Effective capabilities go and come back with uid 0 (capabilities(7)).
    """
    syscall("setresuid", -1, uid, -1, operand=str(uid))
    try:
        return action()
    finally:
        try:
            syscall("setresuid", -1, 0, -1, operand="0")
        except OSError as error:
            log.error(f"cannot be root again: {error}")
            os._exit(70)


def at(pid: int, kind: str, action: Callable[[], Answer]) -> Answer:
    """As `inside`, in the namespace of a task."""
    fd = identity.open_namespace(pid, kind)
    try:
        return inside(fd, kind, action)
    finally:
        os.close(fd)

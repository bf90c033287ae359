"""How the master of a container's terminal comes to the command: it is taken out of the child, or sent where that is
not allowed. Loaded only for a terminal.
"""

from __future__ import annotations

from sysvisor_runc.kernel.prctl import capget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.child.main import Wiring
    from sysvisor_runc.launch.child import Child

_CAP_SYS_PTRACE = 19


def wire(wiring: Wiring) -> int:
    """Our end of the socket that it will be sent through, -1 where it can be taken.

    That wants CAP_SYS_PTRACE, since the child is not dumpable.
    """
    if capget()[0] >> _CAP_SYS_PTRACE & 1:
        return -1
    from sysvisor_runc.child import late

    ours, wiring.handover = late.pair()
    return ours.detach()


def take(child: Child, number: int, link: int) -> int:
    """The descriptor that is `number` in the child; `link` is what `wire` gave. Raises OSError."""
    if link < 0:
        from sysvisor_runc.kernel.pidfd import pidfd_getfd

        return pidfd_getfd(child.pidfd, number)
    from sysvisor_runc.child import late

    (master,), _ = late.receive(link, {})
    return master

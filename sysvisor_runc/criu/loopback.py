"""Bring `lo` up in the network namespace of another process: one that is to be empty criu leaves as it is made."""

from __future__ import annotations

import fcntl
import os

from sysvisor_runc.errors import LaunchError
from sysvisor_runc.kernel.namespaces import CLONE_NEWNET, clone3, setns
from sysvisor_runc.kernel.syscall import syscall

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def bring_up_loopback(pid: int) -> None:
    """In a process of its own, since a network namespace that was joined is not left again.

    Raises:
        LaunchError: it cannot be done.
    """
    helper, pidfd = clone3(0)
    if helper == 0:
        _helper(pid)
    os.close(pidfd)
    if os.waitpid(helper, 0)[1]:
        raise LaunchError(f"bring lo up in the network namespace of process {pid}")


def _helper(pid: int) -> None:
    try:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        setns(fd, CLONE_NEWNET)
        # struct ifreq is 16 bytes of name and a union of 24 (netdevice(7)).
        link = syscall("socket", 2, 2 | os.O_CLOEXEC, 0)
        request = fcntl.ioctl(link, _SIOCGIFFLAGS, b"lo".ljust(16, b"\0") + bytes(24))
        flags = int.from_bytes(request[16:18], "little") | _IFF_UP
        fcntl.ioctl(link, _SIOCSIFFLAGS, request[:16] + flags.to_bytes(2, "little") + bytes(22))
        os._exit(0)
    finally:
        os._exit(1)

"""The lock that criu puts on a network namespace while its processes are away: rules of iptables that drop packets.

One that outlives the container, since it was given by path, would keep it: criu leaves the rules where the container is
gone, adds the same again on restore, and before 4.2 fails to take out what is there twice (criu/net.c).
"""

from __future__ import annotations

import os

from sysvisor_runc import log
from sysvisor_runc.errors import reason
from sysvisor_runc.kernel.namespaces import CLONE_NEWNET, clone3, setns
from sysvisor_runc.launch.spawn import run_program

_CHAIN = "CRIU"
_ROUNDS = 16  # as many checkpoints as may have locked it, one after the other


def unlock(path: str) -> None:
    """Take criu's rules out of the network namespace at `path`; where there are none nothing happens.

    Where that fails a warning says so: by then the container is saved, or back.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        log.warning(f"network namespace {path!r} may still be locked: {reason(error)}")
        return
    pid, pidfd = clone3(0)
    if pid == 0:
        try:
            setns(fd, CLONE_NEWNET, operand=path)
            for program in ("iptables", "ip6tables"):
                _remove(program)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(fd)
    os.close(pidfd)
    if os.waitpid(pid, 0)[1]:
        log.warning(f"network namespace {path!r} may still be locked: look for the chain {_CHAIN} with iptables -S")


def _remove(program: str) -> None:
    for hook in ("INPUT", "OUTPUT"):
        for _ in range(_ROUNDS):
            if not _succeeds(program, "-D", hook, "-j", _CHAIN):
                break
    if _succeeds(program, "-F", _CHAIN):
        run_program([program, "-w", "-X", _CHAIN])


def _succeeds(program: str, *args: str) -> bool:
    try:
        run_program([program, "-w", *args], quiet=True)
    except OSError:
        return False  # no such rule; or no iptables, with which criu cannot have made it
    return True

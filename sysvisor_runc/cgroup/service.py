"""A unit of systemd's that is delegated to us, on pure cgroup v2: its container shall be in it. Loaded in a service.

A cgroup with processes passes no controllers down, and ours has at least one: us. As with DelegateSubgroup= of
systemd 254 we so move one level down, and what counts from our cgroup's parent (see `paths`) is in the unit.
"""

from __future__ import annotations

import os

from sysvisor_runc.cgroup.tree import pids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.layout import Hierarchy

SUBGROUP = "supervisor"
# What systemd writes on the cgroup of a unit with Delegate=yes; the second since 251, for those who are not root.
_MARKS = ("trusted.delegate", "user.delegate")


def make_room(unified: Hierarchy) -> None:
    """Move into a cgroup below ours if that is a delegated unit's and holds nobody else; otherwise leave it all."""
    own = unified.own
    if own == unified.mountpoint or not _delegated(own) or pids(own, recursive=False) != [os.getpid()]:
        return
    below = f"{own}/{SUBGROUP}"
    try:
        try:
            os.mkdir(below)
        except FileExistsError:
            pass  # of an earlier start of the unit
        with open(f"{below}/cgroup.procs", "wb", buffering=0) as file:
            file.write(b"0")
    except OSError:
        return  # then the container goes beside the unit
    unified.own = below


def _delegated(path: str) -> bool:
    for mark in _MARKS:
        try:
            if os.getxattr(path, mark) == b"1":
                return True
        except OSError:
            pass
    return False

"""What only the child may do for a caller without privileges, and what not even that. Loaded only for one.

open_tree(2) wants CAP_SYS_ADMIN over a mount namespace, which such a caller has inside the user namespace that the
child lives in. The mounts are copies of the host's there, with flags that the kernel has locked (mount_namespaces(7)).
"""

from __future__ import annotations

import os

from sysvisor_runc.child.mounts import clone_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysvisor_runc.child.identity import Identity

_READ = os.O_RDONLY | os.O_CLOEXEC


class OwnTree:
    """One tree to open: `path` on the host, `recursive` with what is mounted below; `propagation` is set on all."""

    __slots__ = ("number", "path", "propagation", "recursive")

    def __init__(self, number: int, path: str, *, recursive: bool, propagation: int) -> None:
        self.number = number
        self.path = path
        self.recursive = recursive
        self.propagation = propagation


def open_own_trees(wanted: Sequence[OwnTree], opened: dict[int, int]) -> None:
    """Open every tree into `opened`, by number. Raises OSError."""
    for tree in wanted:
        opened[tree.number] = clone_tree(tree.path, recursive=tree.recursive, propagation=tree.propagation)


def leave_groups(identity: Identity, process: str) -> None:
    """Leave the groups alone where `process`'s user namespace denies setgroups(2) and none is asked for.

    So it is for one that an ordinary user made without newgidmap(1): user_namespaces(7), "/proc/pid/setgroups". Where
    groups are asked for, the call itself says that it may not be.
    """
    if identity.groups:
        return
    try:
        fd = os.open(f"/proc/{process}/setgroups", _READ)
    except OSError:
        return
    try:
        if os.read(fd, 8).startswith(b"deny"):
            identity.groups = None
    finally:
        os.close(fd)

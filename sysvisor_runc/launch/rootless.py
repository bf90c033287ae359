"""A launch by a caller without privileges: what the child does instead, and which cgroups there are."""

from __future__ import annotations

import os

from sysvisor_runc.child.rootless import OwnTree
from sysvisor_runc.errors import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysvisor_runc.cgroup.manager import Manager
    from sysvisor_runc.plan.mounts import Tree


def leave_to_child(trees: Sequence[Tree]) -> list[OwnTree]:
    """The trees for a child to open that has the privileges which its caller lacks.

    Raises:
        LaunchError: one of them is to be ID-mapped.
    """
    for tree in trees:
        if tree.idmap:
            raise LaunchError(
                f"{tree.where}: id-mapped mounts are not supported for rootless containers",
                hint="own the files, or run as root",
            )
    return [
        OwnTree(number, tree.path, recursive=tree.recursive, propagation=tree.propagation)
        for number, tree in enumerate(trees)
    ]


def keep_writable(manager: Manager) -> None:
    """Drop the hierarchies in which the caller may make no cgroup: the container does without them."""
    kept = {key: path for key, path in manager.paths.items() if _may_make(path)}
    manager.incomplete = manager.incomplete or len(kept) < len(manager.paths)
    manager.paths = kept


def _may_make(path: str) -> bool:
    """Whether a cgroup can be made at `path`, or is there and can be joined (cgroups(7), "Delegation")."""
    if os.path.isdir(path):
        return os.access(f"{path}/cgroup.procs", os.W_OK)
    while path and not os.path.isdir(path):
        path = os.path.dirname(path)
    return os.access(path, os.W_OK)

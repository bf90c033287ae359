"""Take a container with a user namespace the right to undo mount flags that it has not set itself.

The kernel locks `ro`, `nosuid`, `nodev` and `noexec` on mounts that are copied into a mount namespace of a less
privileged user namespace (mount_namespaces(7), "Restrictions on mount namespaces"). A tree that the host opens is
handed over by descriptor and was never copied so: the container's root could remount a read-only volume writable, and
on an ID-mapped one would write with the host's own ids. So a helper copies the trees across such a border first.

Loaded only for containers with a user namespace.
"""

from __future__ import annotations

import os
import stat

from sysvisor_runc.kernel import mount as m
from sysvisor_runc.kernel.namespaces import CLONE_NEWNS, CLONE_NEWUSER, unshare
from sysvisor_runc.launch.shelf import put, with_shelf
from sysvisor_runc.launch.trees import idmap_trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysvisor_runc.child.mounts import Attributes
    from sysvisor_runc.plan.mounts import Tree
    from sysvisor_runc.plan.plan import Plan

_RESTRICTING = m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC
# statvfs(3) tells the flags of the mount: ST_RDONLY, ST_NOSUID, ST_NODEV, ST_NOEXEC.
_RESTRICTED = 1 | 2 | 4 | 8


def lock_restricted(plan: Plan, opened: dict[int, int], *, idmapped: bool) -> bool:
    """Lock the flags of all trees that have some to lock. Whether the trees are ID-mapped by now.

    What is locked gets attached for it, and can then be ID-mapped no more: so that is done before there is a child.

    Raises:
        LaunchError: the kernel refuses.
    """
    wanted = restricted(plan.trees, opened)
    if not wanted:
        return idmapped
    if not idmapped and any(tree.idmap for tree in plan.trees):
        _idmap_early(plan, opened)
        idmapped = True
    lock_trees(plan.trees, opened, wanted)
    return idmapped


def _idmap_early(plan: Plan, opened: dict[int, int]) -> None:
    if plan.clone_flags & CLONE_NEWUSER:
        from sysvisor_runc.launch.userns import user_namespace

        fd = user_namespace(plan.uid_mappings, plan.gid_mappings)
    else:
        fd = os.open(dict(plan.join)[CLONE_NEWUSER], os.O_RDONLY | os.O_CLOEXEC)
    try:
        idmap_trees(plan.trees, opened, fd)
    finally:
        os.close(fd)


def restricted(trees: Sequence[Tree], opened: dict[int, int]) -> list[int]:
    """The numbers of the trees that have flags to lock, from config.json or from the host's own mounts."""
    return [number for number, tree in enumerate(trees) if number in opened if _is_restricted(tree, opened[number])]


def lock_trees(trees: Sequence[Tree], opened: dict[int, int], wanted: list[int]) -> None:
    """Replace each tree of `wanted` in `opened` by a copy whose flags, set here, nobody inside can clear.

    ID-mapped trees must be so already: only a mount that nobody has seen yet can be ID-mapped.

    Raises:
        LaunchError: the kernel refuses.
    """
    copies = with_shelf("lock the flags of bind mounts", lambda shelf: _copies(shelf, trees, opened, wanted))
    for number, copy in zip(wanted, copies, strict=True):
        os.close(opened[number])
        opened[number] = copy


def _is_restricted(tree: Tree, fd: int) -> bool:
    if os.fstatvfs(fd).f_flag & _RESTRICTED:
        return True
    attributes = tree.attributes
    if attributes is None:  # the root file system, or what the host has made anew
        return tree.recursive and _has_mounts_below(tree.path)
    if (attributes.set | attributes.set_tree) & _RESTRICTING:
        return True
    # What lies below may be restricted by itself.
    return tree.recursive and stat.S_ISDIR(os.fstat(fd).st_mode)


def _has_mounts_below(path: str) -> bool:
    """Whether the host has mounted something in a directory (proc_pid_mountinfo(5), field 5)."""
    place = os.fsencode(os.path.realpath(path)).rstrip(b"/")
    for byte, escape in ((b"\\", b"\\134"), (b" ", b"\\040"), (b"\t", b"\\011"), (b"\n", b"\\012")):
        place = place.replace(byte, escape)
    with open("/proc/self/mountinfo", "rb", buffering=0) as file:
        return any(line.split(b" ", 5)[4].startswith(place + b"/") for line in file.readall().splitlines())


def _copies(shelf: int, trees: Sequence[Tree], opened: dict[int, int], wanted: list[int]) -> list[int]:
    """Attach the trees in a directory of this mount namespace, set their flags, cross the border, clone them there."""
    for number in wanted:
        attributes = trees[number].attributes
        if attributes is not None:
            _restrict(opened[number], attributes)
        put(shelf, str(number), opened[number])
    unshare(CLONE_NEWUSER | CLONE_NEWNS)
    flags = m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC
    return [
        m.open_tree(m.AT_FDCWD, str(number), flags | (m.AT_RECURSIVE if trees[number].recursive else 0))
        for number in wanted
    ]


def _restrict(tree: int, attributes: Attributes) -> None:
    """Set what is to be locked. The rest, and what the options clear, is the child's to do, as far as it then may."""
    for flags, wanted in ((0, attributes.set), (m.AT_RECURSIVE, attributes.set_tree)):
        if wanted & _RESTRICTING:
            m.mount_setattr(tree, "", flags | m.AT_EMPTY_PATH, attr_set=wanted & _RESTRICTING)

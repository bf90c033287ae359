"""Open the detached mounts that the child attaches, and ID-map them. Imports kernel, errors and plan values."""

from __future__ import annotations

import os

from sysvisor_runc.child.mounts import clone_tree
from sysvisor_runc.errors import LaunchError, reason
from sysvisor_runc.kernel import mount as m

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysvisor_runc.plan.mounts import Tree


def open_trees(trees: Sequence[Tree], numbers: Sequence[int] | None = None) -> dict[int, int]:
    """Open every tree, or those with `numbers`; descriptors by number, inherited by the child, close-on-exec.

    Raises:
        LaunchError: a source is missing or cannot be cloned.
    """
    opened: dict[int, int] = {}
    for number in range(len(trees)) if numbers is None else numbers:
        tree = trees[number]
        try:
            opened[number] = _make(tree) or clone_tree(
                tree.path, recursive=tree.recursive, propagation=tree.propagation
            )
        except OSError as error:
            close_trees(opened)
            hint = "the path is on the host; make it first" if error.errno == 2 else None
            raise LaunchError(f"{tree.where}: open {tree.path!r}: {reason(error)}", hint=hint) from error
    return opened


def _make(tree: Tree) -> int:
    """A tree of a kind that the host makes rather than finds; 0 for all others."""
    if hasattr(tree, "nodes"):
        from sysvisor_runc.launch.nodes import make_node_tree

        return make_node_tree(tree)  # type: ignore[arg-type]  # it has nodes
    if hasattr(tree, "layers"):
        from sysvisor_runc.launch.overlay import make_overlay_tree

        return make_overlay_tree(tree)  # type: ignore[arg-type]  # it has layers
    if hasattr(tree, "namespace"):
        from sysvisor_runc.launch.foreign import make_foreign_tree

        return make_foreign_tree(tree)  # type: ignore[arg-type]  # it has a namespace
    return 0


def close_trees(opened: dict[int, int]) -> None:
    """Close what `open_trees` opened: a tree that nobody attached is gone with its last descriptor."""
    for fd in opened.values():
        os.close(fd)
    opened.clear()


def idmap_trees(trees: Sequence[Tree], opened: dict[int, int], userns_fd: int) -> None:
    """ID-map the trees that ask for it, through the container's user namespace or one made for given mappings.

    The child holds descriptors of the same mounts, so it need not be told.

    Raises:
        LaunchError: the file system does not allow it.
    """
    for number, tree in enumerate(trees):
        if tree.idmap == "container":
            _idmap(tree, opened[number], userns_fd)
        elif tree.idmap == "own":
            from sysvisor_runc.launch.userns import user_namespace

            fd = user_namespace(tree.uid_mappings, tree.gid_mappings)
            try:
                _idmap(tree, opened[number], fd)
            finally:
                os.close(fd)


def idmap_of_child(trees: Sequence[Tree], pid: int, pidfd: int, asked: bytes) -> None:
    """ID-map a detached mount that the child `pid` holds; `asked`: its descriptor there, and which of `trees` it is.

    Raises:
        LaunchError: the file system does not allow it.
    """
    from sysvisor_runc.kernel.pidfd import pidfd_getfd

    number, index = map(int, asked.split())
    fd = pidfd_getfd(pidfd, number)
    userns_fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        idmap_trees([trees[index]], {0: fd}, userns_fd)
    finally:
        os.close(userns_fd)
        os.close(fd)


def _idmap(tree: Tree, fd: int, userns_fd: int) -> None:
    recursive = m.AT_RECURSIVE if tree.idmap_tree else 0
    try:
        m.mount_setattr(fd, "", m.AT_EMPTY_PATH | recursive, attr_set=m.MOUNT_ATTR_IDMAP, userns_fd=userns_fd)
    except OSError as error:
        chown = "chown it to the container's ids (--uid-shift chown)"
        hint = None
        if error.errno == 22:  # EINVAL
            hint = f"its file system does not support ID-mapped mounts; {chown}"
        elif error.errno == 1:  # EPERM: mount_setattr(2) wants CAP_SYS_ADMIN where its super block was made
            hint = f"its file system was mounted outside of the user namespace that this is; {chown}"
        raise LaunchError(f"{tree.where}: id-map {tree.path!r}: {reason(error)}", hint=hint) from error

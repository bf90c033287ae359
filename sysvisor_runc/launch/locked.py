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

from sysvisor_runc.errors import LaunchError, reason
from sysvisor_runc.kernel import mount as m
from sysvisor_runc.kernel.namespaces import CLONE_NEWNS, CLONE_NEWUSER, clone3, unshare
from sysvisor_runc.kernel.pidfd import pidfd_getfd
from sysvisor_runc.launch.trees import idmap_trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

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
    report = os.pipe()
    release = os.pipe()
    pid, pidfd = clone3(CLONE_NEWNS)
    if pid == 0:
        os.close(release[1])
        _copy_and_wait(trees, opened, wanted, report[1], release[0])
    os.close(report[1])
    os.close(release[0])
    try:
        answer = _read_all(report[0]).decode("utf-8", "surrogateescape")
        word, _, rest = answer.partition(" ")
        if word != "copied":
            raise LaunchError(f"lock the flags of bind mounts: {rest or 'the helper ended unexpectedly'}")
        for number, fd in zip(wanted, map(int, rest.split()), strict=True):
            copy = pidfd_getfd(pidfd, fd)
            os.close(opened[number])
            opened[number] = copy
    finally:
        os.close(report[0])
        os.close(release[1])
        os.close(pidfd)
        os.waitpid(pid, 0)


def _is_restricted(tree: Tree, fd: int) -> bool:
    if os.fstatvfs(fd).f_flag & _RESTRICTED:
        return True
    attributes = tree.attributes
    if attributes is None:
        return False
    if (attributes.set | attributes.set_tree) & _RESTRICTING:
        return True
    # What lies below may be restricted by itself.
    return tree.recursive and stat.S_ISDIR(os.fstat(fd).st_mode)


def _copy_and_wait(
    trees: Sequence[Tree], opened: dict[int, int], wanted: list[int], report: int, release: int
) -> NoReturn:
    """The helper: tell the numbers of the copies on `report` and keep them open until `release` closes."""
    try:
        copies = _copies(trees, opened, wanted)
        os.write(report, f"copied {' '.join(map(str, copies))}".encode())
        os.close(report)
        os.read(release, 1)
    except OSError as error:
        text = str(error) if hasattr(error, "call") else reason(error)
        os.write(report, f"failed {text}".encode("utf-8", "surrogateescape"))
    finally:
        os._exit(0)


def _copies(trees: Sequence[Tree], opened: dict[int, int], wanted: list[int]) -> list[int]:
    """Attach the trees in a directory of this mount namespace, set their flags, cross the border, clone them there."""
    m.mount(None, "/", None, m.MS_PRIVATE | m.MS_REC)
    shelf = _new_tmpfs()
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    _attach(shelf, root)
    for number in wanted:
        attributes = trees[number].attributes
        if attributes is not None:
            _restrict(opened[number], attributes)
        _attach(opened[number], _place(shelf, str(number), opened[number]))
    # A process whose root is mounted over counts as one in a chroot, which may make no user namespace.
    os.fchdir(shelf)
    os.chroot(".")
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


def _new_tmpfs() -> int:
    context = m.fsopen("tmpfs")
    m.fsconfig(context, m.FSCONFIG_SET_STRING, "mode", "755")
    m.fsconfig(context, m.FSCONFIG_CMD_CREATE)
    return m.fsmount(context)


def _place(shelf: int, name: str, tree: int) -> int:
    """An empty file or directory to mount `tree` on, open (O_PATH)."""
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        os.mkdir(name, 0o755, dir_fd=shelf)
    else:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=shelf))
    return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=shelf)


def _attach(tree: int, destination: int) -> None:
    flags = m.MOVE_MOUNT_F_EMPTY_PATH | m.MOVE_MOUNT_T_EMPTY_PATH
    m.move_mount(tree, "", destination, "", flags)


def _read_all(fd: int) -> bytes:
    data = b""
    while part := os.read(fd, 65536):
        data += part
    return data

"""A system container's own cgroups: it may make more and move its processes, but never raise its limits.

v1: below the container's cgroup, whose files stay the host's, each hierarchy gets a leaf. The container's root owns the
leaf's directory, `cgroup.procs` and `tasks`, which is what systemd and dockerd need, and no limit file. Limits one
level up bind all below, but not everywhere: v1's I/O throttles and network marks bind one cgroup only, so a container
that could make a cgroup there would leave them behind. Where such a limit is set, the leaf stays the host's.

v2: the container owns its cgroup's directory and the files that the kernel lists in /sys/kernel/cgroup/delegate for
processes and controllers, not the limit files in it, and a leaf for its first processes.
"""

from __future__ import annotations

import os

from sysvisor_runc.cgroup.file import GONE, failure, read, read_if_there, write
from sysvisor_runc.cgroup.layout import UNIFIED
from sysvisor_runc.cgroup.manager import LEAF_V1, LEAF_V2, discard
from sysvisor_runc.cgroup.tree import directories

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.manager import Manager
    from sysvisor_runc.cgroup.settings import Setting

_OWNED_V1 = (".", "cgroup.procs", "tasks")
_OWNED_V2 = (".", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads")
_NO_LIMIT_V1 = "9223372036854771712"  # LONG_MAX in whole pages
_THROTTLES = ("read_bps", "write_bps", "read_iops", "write_iops")


def delegate(manager: Manager, uid: int, gid: int) -> list[str]:
    """See `Manager.delegate`; limits may be applied before or after. Raises CgroupError."""
    made: list[str] = []
    try:
        for path, controller in manager.directories().items():
            leaf = f"{path}/{LEAF_V2 if manager.v2 else LEAF_V1}"
            try:
                _delegate_one(path, leaf, controller, uid, gid, made)
                if manager.v2:
                    _give(path, _OWNED_V2, uid, gid)
            except OSError as e:
                raise failure("delegate", e.filename or leaf, e) from None
    except BaseException:
        discard(made)
        raise
    manager.delegated = True
    return made


def _delegate_one(path: str, leaf: str, controller: str, uid: int, gid: int, made: list[str]) -> None:
    if controller == "cpuset":
        # A new cpuset is empty and cannot be joined, unless this tells the kernel to copy the parent's; children
        # inherit the flag, so it also spares the programs inside.
        write(path + "/cgroup.clone_children", "1")
    try:
        os.mkdir(leaf, 0o755)
        made.append(leaf)
    except FileExistsError:
        pass
    if controller == "memory":
        _show_limit(path, leaf)
    if controller == UNIFIED:
        _give(leaf, _OWNED_V2, uid, gid)
    elif not _keep(path, leaf):
        _give(leaf, _OWNED_V1, uid, gid)


def _show_limit(path: str, leaf: str) -> None:
    """Repeat the memory limit in the leaf, where it adds nothing: those who watch init (containerd's shim, and with it
    `docker stats`) read the limit of the cgroup that init is in.
    """
    limit = read_if_there(f"{path}/memory.limit_in_bytes") or ""
    if len(limit) < len(_NO_LIMIT_V1):
        write(f"{leaf}/memory.limit_in_bytes", limit)


def _give(directory: str, files: tuple[str, ...], uid: int, gid: int) -> None:
    for file in files:
        os.chown(f"{directory}/{file}", uid, gid, follow_symlinks=False)


def _keep(path: str, leaf: str) -> bool:
    """Whether limits that bind one cgroup only are set in `path`: then they go to the leaf, which stays the host's.

    The network marks need no copy: a new cgroup starts with its parent's (net_cls.rst, net_prio.rst).
    """
    keep = False
    for name in _THROTTLES:
        file = f"blkio.throttle.{name}_device"
        for line in (read_if_there(f"{path}/{file}") or "").splitlines():
            write(f"{leaf}/{file}", line)
            keep = True
    return keep or (read_if_there(f"{path}/net_cls.classid") or "0") != "0" or _has_priorities(path)


def _has_priorities(path: str) -> bool:
    text = read_if_there(f"{path}/net_prio.ifpriomap") or ""
    return any(not line.endswith(" 0") for line in text.splitlines())


def pass_on(path: str, step: Setting) -> None:
    """Hand a v1 value that `path` itself has just got on to the leaf, which does not get it by itself.

    A limit that binds one cgroup only goes to every cgroup below and takes the right to make more of them away.

    Raises:
        CgroupError: it is refused there.
    """
    try:
        if step.flat:
            for index, directory in enumerate(_paths(path)):
                if index:
                    _write(directory, step)
                    _give(directory, _OWNED_V1, 0, 0)
        else:
            _write(f"{path}/{LEAF_V1}", step)
    except OSError as e:
        raise failure(f"pass {step.file} on below", path, e) from None


def narrow_below(path: str, step: Setting) -> None:
    """Write a v1 cpuset into everything below `path`, deepest first: a cpuset must contain its children's, so `path`
    can only follow (cpusets.rst). Until then it has what it had as well, since the two may have nothing in common.

    Raises:
        CgroupError: a cgroup refuses; `path` is as it was.
    """
    file = f"{path}/{step.file}"
    before = read(file)
    try:
        write(file, f"{before},{step.value}")
        for directory in reversed(_paths(path)[1:]):
            _write(directory, step)
    except OSError as e:
        write(file, before)
        raise failure("narrow the cpusets below", path, e) from None


def _paths(path: str) -> list[str]:
    return [os.readlink(f"/proc/self/fd/{fd}") for fd in directories(path)]


def _write(directory: str, step: Setting) -> None:
    try:
        write(f"{directory}/{step.file}", step.value)
    except OSError as e:
        if e.errno not in GONE:
            raise

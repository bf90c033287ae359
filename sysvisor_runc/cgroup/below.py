"""v1 limits that change while the container has cgroups of its own below: what does not reach these by itself."""

from __future__ import annotations

import os

from sysvisor_runc.cgroup.file import GONE, failure, read
from sysvisor_runc.cgroup.layout import LEAF_V1
from sysvisor_runc.cgroup.tree import directories
from sysvisor_runc.kernel.file import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.settings import Setting

# What the owner of a cgroup needs to make more below, and to move its processes there.
OWNED_V1 = (".", "cgroup.procs", "tasks")


def give(directory: str, files: tuple[str, ...], uid: int, gid: int) -> None:
    """Make a user the owner of these files of a cgroup. Raises OSError."""
    for file in files:
        os.chown(f"{directory}/{file}", uid, gid, follow_symlinks=False)


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
                    give(directory, OWNED_V1, 0, 0)
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

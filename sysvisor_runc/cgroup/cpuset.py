"""Changing a v1 cpuset that has cgroups below it.

On v1 a cpuset must contain its children's and passes nothing on (cpusets.rst): what narrows goes bottom-up, and what
widens has to be handed to the leaf that holds the processes. Loaded only when that happens.
"""

from __future__ import annotations

import os

from sysvisor_runc.cgroup.file import GONE, failure, write
from sysvisor_runc.cgroup.tree import directories

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.settings import Setting


def narrow_below(path: str, step: Setting) -> None:
    """Write the value into everything below `path`, deepest first, so that `path` itself may follow.

    Raises:
        CgroupError: a cgroup below refuses.
    """
    try:
        below = [os.readlink(f"/proc/self/fd/{fd}") for fd in directories(path)][1:]
        for directory in reversed(below):
            _write(directory, step)
    except OSError as e:
        raise failure("narrow the cpusets below", path, e) from None


def widen_leaf(leaf: str, step: Setting) -> None:
    """Hand a new value on to the delegated leaf. Raises CgroupError."""
    try:
        _write(leaf, step)
    except OSError as e:
        raise failure(f"set {step.file} in", leaf, e) from None


def _write(directory: str, step: Setting) -> None:
    try:
        write(f"{directory}/{step.file}", step.value)
    except OSError as e:
        if e.errno not in GONE:
            raise

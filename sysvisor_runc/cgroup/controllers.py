"""Passing cgroup v2 controllers down to a new cgroup, through everything above it (cgroups(7), "subtree_control")."""

from __future__ import annotations

import errno

from sysvisor_runc.cgroup.file import read, read_if_there
from sysvisor_runc.errors import CgroupError
from sysvisor_runc.kernel.file import write


def pass_down(path: str, top: str) -> None:
    """Enable in every cgroup above `path` what `top` has, as far as each permits; a missing one shows when limits
    are set.

    Raises:
        OSError: the cgroup is gone or may not be read.
        CgroupError: `path` can hold no processes.
    """
    wanted = read(top + "/cgroup.controllers").split()
    have = read(path + "/cgroup.controllers").split()
    if len(have) < len(wanted):
        above = [top]
        for part in path[len(top) + 1 :].split("/")[:-1]:
            above.append(f"{above[-1]}/{part}")
        for directory in above:
            _enable(directory, set(read(directory + "/cgroup.controllers").split()))
    kind = read_if_there(path + "/cgroup.type")
    if kind not in (None, "domain"):
        raise CgroupError(
            f"cannot use cgroup {path}: it is in {kind!r} mode",
            hint="a cgroup above it holds processes or is threaded; choose another linux.cgroupsPath",
        )


def _enable(directory: str, available: set[str]) -> None:
    file = directory + "/cgroup.subtree_control"
    missing = available - set(read(file).split())
    if not missing:
        return
    try:
        write(file, " ".join("+" + name for name in sorted(missing)))
    except OSError as e:
        if e.errno == errno.EBUSY:
            # It holds processes. The kernel would still pass cpu and pids down, one by one, but that makes it the head
            # of a threaded subtree, and what is below could not be joined at all (cgroups(7), "domain invalid").
            return
        # One refusal refuses all of them, so see which can be had.
        for name in missing:
            try:
                write(file, "+" + name)
            except OSError:
                pass

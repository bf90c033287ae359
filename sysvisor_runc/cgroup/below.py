"""v1 limits that change while the container has cgroups of its own below: what does not reach these by itself."""

from __future__ import annotations

import errno
import os

from sysvisor_runc.cgroup.file import GONE, failure, read
from sysvisor_runc.cgroup.kill import try_freeze
from sysvisor_runc.cgroup.layout import LEAF_V1
from sysvisor_runc.cgroup.tree import directories, remove
from sysvisor_runc.kernel import file
from sysvisor_runc.kernel.file import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.kill import Freezable
    from sysvisor_runc.cgroup.settings import Setting

# What the owner of a cgroup needs to make more below, and to move its processes there.
OWNED_V1 = (".", "cgroup.procs", "tasks")


def give(directory: str, files: tuple[str, ...], uid: int, gid: int) -> None:
    """Make a user the owner of these files of a cgroup. Raises OSError."""
    for name in files:
        os.chown(f"{directory}/{name}", uid, gid, follow_symlinks=False)


def pass_on(path: str, step: Setting, manager: Freezable) -> None:
    """Hand a v1 value that `path` itself has just got on to the leaf, which does not get it by itself.

    A limit that binds one cgroup only goes to every cgroup below and takes the right to make more of them away.

    Raises:
        CgroupError: it is refused there.
    """
    leaf = f"{path}/{LEAF_V1}"
    try:
        if not step.flat:
            _write(step, None, f"{leaf}/{step.file}")
            return
        held = not manager.frozen() and try_freeze(manager)
        try:
            _bind_all(leaf, step)
        finally:
            if held:
                manager.thaw()
    except OSError as e:
        raise failure(f"pass {step.file} on below", path, e) from None


def _bind_all(leaf: str, step: Setting) -> None:
    """Write the limit into the leaf and every cgroup below, none of which is the container's any more.

    Whoever has made a cgroup owns its files, limits included, and may hold them open, which no change of owner ends. So
    those of the container's making are made anew, with the threads that they had.
    """
    strange = False
    for dirfd in directories(leaf):
        strange = strange or os.fstat(dirfd).st_uid != 0
        # Before it is looked into: from then on nobody inside makes or removes anything there.
        _take(dirfd)
        _write(step, dirfd)
    if not strange:
        return
    found = []
    for dirfd in directories(leaf, deepest_first=True):
        threads = file.read("tasks", dirfd).split()
        found.append((_place(dirfd), threads))
        _move(threads, leaf)
    found.pop()  # the leaf, which comes last
    for entry in os.scandir(leaf):
        if entry.is_dir(follow_symlinks=False):
            remove(entry.path)
    for place, threads in reversed(found):
        if place:
            os.mkdir(place, 0o755)
            _write(step, None, f"{place}/{step.file}")
            _move(threads, place)


def _place(dirfd: int) -> str:
    """The path of a cgroup; "" for one that is deeper than a path can say, which nobody can use either."""
    try:
        return os.readlink(f"/proc/self/fd/{dirfd}")
    except OSError as e:
        if e.errno != errno.ENAMETOOLONG:
            raise
        return ""


def _move(threads: list[bytes], directory: str) -> None:
    for thread in threads:
        try:
            write(f"{directory}/tasks", thread.decode())
        except ProcessLookupError:
            pass


def narrow_below(path: str, step: Setting, manager: Freezable) -> None:
    """Write a v1 cpuset into `path` and all below, deepest first: a cpuset must contain its children's, so it can
    only follow (cpusets.rst). Until then each has what it had as well: the two may have nothing in common.

    The container is held still meanwhile, if it can be: it may write the cpusets below itself.

    Raises:
        CgroupError: a cgroup refuses; `path` is as it was, if that can be.
    """
    before = read(f"{path}/{step.file}")
    held = not manager.frozen() and try_freeze(manager)
    try:
        for dirfd in directories(path):
            _widen(step, dirfd)
        for dirfd in directories(path, deepest_first=True):
            if _value(step, dirfd):
                _write(step, dirfd)
    except OSError as e:
        try:
            write(f"{path}/{step.file}", before)
        except OSError:
            pass  # the first failure is the one to be told
        raise failure("narrow the cpusets below", path, e) from None
    finally:
        if held:
            manager.thaw()


def _widen(step: Setting, dirfd: int) -> None:
    """Add the CPUs or memory nodes to what a cpuset has; one that is empty holds nobody, and stays so."""
    before = _value(step, dirfd)
    if before:
        try:
            write(step.file, f"{before},{step.value}", dirfd)
        except OSError as e:
            if e.errno not in GONE:
                raise


def _value(step: Setting, dirfd: int) -> str:
    try:
        return file.read(step.file, dirfd).decode("ascii", "replace").strip()
    except OSError as e:
        if e.errno not in GONE:
            raise
        return ""


def _take(dirfd: int) -> None:
    """Make a cgroup the host's, which its owner may be about to remove."""
    for name in OWNED_V1:
        try:
            os.chown(name, 0, 0, dir_fd=dirfd, follow_symlinks=False)
        except OSError as e:
            if e.errno not in GONE:
                raise


def _write(step: Setting, dirfd: int | None, path: str = "") -> None:
    try:
        write(path or step.file, step.value, dirfd)
    except OSError as e:
        if e.errno not in GONE:
            raise

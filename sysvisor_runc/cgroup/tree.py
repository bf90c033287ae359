"""A cgroup with everything below it: which processes it holds, and taking it down.

What is below may have been made by a hostile container: names are used relative to directory fds, so depth never meets
PATH_MAX or the recursion limit, and every loop has an end.
"""

from __future__ import annotations

import errno
import os
import time

from sysvisor_runc.cgroup.file import GONE, failure
from sysvisor_runc.errors import CgroupError
from sysvisor_runc.kernel import file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BUSY = (errno.EBUSY, errno.ENOTEMPTY)
# Tasks leave a cgroup a moment after they have died; first waits are short because most do at once.
_FIRST_WAIT = 0.0005
_LONGEST_WAIT = 0.1
_PATIENCE = 3.0


def directories(path: str, *, deepest_first: bool = False) -> Iterator[int]:
    """Yield a directory fd of `path` and of every cgroup below, parents first; each is closed on the way on.

    What is below one is looked up after it was yielded. With `deepest_first` each comes after all that is below it.

    Only two fds are open at a time whatever the depth. Raises OSError where `path` itself cannot be opened.
    """
    fd = os.open(path, _DIRECTORY)
    levels: list[list[str]] = []
    try:
        if not deepest_first:
            yield fd
        levels.append(_children(fd))
        while levels:
            if not levels[-1]:
                if deepest_first:
                    yield fd
                levels.pop()
                if levels:
                    fd = _step(fd, "..")
                continue
            try:
                fd = _step(fd, levels[-1].pop())
            except OSError as e:
                if e.errno in GONE:
                    continue
                raise
            if not deepest_first:
                yield fd
            levels.append(_children(fd))
    except OSError as e:
        if e.errno not in GONE:  # a cgroup removed under our feet takes the way back with it
            raise
    finally:
        os.close(fd)


def _step(fd: int, name: str) -> int:
    new = os.open(name, _DIRECTORY, dir_fd=fd)
    os.close(fd)
    return new


def _children(fd: int) -> list[str]:
    try:
        with os.scandir(fd) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as e:
        if e.errno in GONE:
            return []
        raise


def pids(path: str, *, recursive: bool = True) -> list[int]:
    """The processes in `path` (and below), as pids of the caller's pid namespace; none where it does not exist.

    Processes of a pid namespace that the caller cannot see read as 0 and are left out.
    """
    found: list[int] = []
    try:
        for fd in directories(path):
            found += _procs(fd)
            if not recursive:
                break
    except OSError as e:
        if e.errno not in GONE:
            raise failure("list the processes of", path, e) from None
    return found


def _procs(dirfd: int) -> list[int]:
    for name in ("cgroup.procs", "cgroup.threads"):
        try:
            data = file.read(name, dirfd)
        except OSError as e:
            if e.errno in GONE:
                return []
            if e.errno == errno.EOPNOTSUPP:  # a threaded cgroup of v2 lists threads only
                continue
            raise
        return [int(line) for line in data.split() if line != b"0"]
    return []


def remove(path: str, *, patience: float = _PATIENCE) -> None:
    """Remove `path` and all below, waiting up to `patience` seconds for the last tasks to leave. Absent is fine.

    It takes longer where there is much to remove.

    Raises:
        CgroupError: it is still busy, or may not be removed.
    """
    deadline = time.monotonic() + patience
    wait = _FIRST_WAIT
    while True:
        try:
            os.rmdir(path)
            return
        except OSError as e:
            if e.errno == errno.ENOENT:
                return
            # A read-only mount says EROFS even for what does not exist.
            if e.errno not in _BUSY:
                if not os.path.exists(path):
                    return
                raise failure("rmdir", path, e) from None
        pruned = _prune(path, deadline)
        if time.monotonic() >= deadline:
            left = pids(path)
            if left or not pruned:
                raise CgroupError(
                    f"unable to remove cgroup {path}: device or resource busy: {len(left)} process(es) left in it",
                    hint="kill them, or delete with --force" if left else None,
                )
            deadline = time.monotonic() + patience  # so many of them, and nobody is left who could make more
        elif not pruned:
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)


def _prune(path: str, deadline: float) -> bool:
    """Remove what can be removed below `path` now; whether anything went, so that waiting may be needless."""
    try:
        fd = os.open(path, _DIRECTORY)
    except OSError as e:
        return e.errno in GONE
    progress = False
    names: list[str] = []  # from `path` down to fd
    stuck: set[tuple[str, ...]] = set()
    try:
        while time.monotonic() < deadline:
            deeper = None
            for name in _children(fd):
                if _rmdir(name, fd):
                    progress = True
                elif deeper is None and (*names, name) not in stuck:
                    deeper = name
            if deeper is not None and (below := _open(deeper, fd)) is not None:
                os.close(fd)
                fd = below
                names.append(deeper)
            elif names:
                stuck.add(tuple(names))
                names.pop()
                fd = _step(fd, "..")
            else:
                break
    except OSError as e:
        if e.errno not in GONE:
            raise failure("remove cgroups below", path, e) from None
    finally:
        os.close(fd)
    return progress


def _rmdir(name: str, dirfd: int) -> bool:
    try:
        os.rmdir(name, dir_fd=dirfd)
    except OSError as e:
        if e.errno in GONE:
            return True
        if e.errno in _BUSY:
            return False
        raise
    return True


def _open(name: str, dirfd: int) -> int | None:
    try:
        return os.open(name, _DIRECTORY, dir_fd=dirfd)
    except OSError as e:
        if e.errno in GONE:
            return None
        raise

"""Reach and make paths inside a root file system that belongs to a stranger: only ever through file descriptors.

Every walk is an openat2(2) with RESOLVE_IN_ROOT, so a symbolic link (or one swapped in by a racing process) cannot lead
outside; RESOLVE_NO_MAGICLINKS keeps /proc/self/fd out of it. May import kernel only.
"""

from __future__ import annotations

import os

from sysvisor_runc.kernel.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

_IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
# A path may cross as many missing or linked components as the kernel follows links in one walk (MAXSYMLINKS).
_LINKS_MAX = 40

ENOENT = 2
EEXIST = 17
ENOTDIR = 20
ELOOP = 40


def open_in_root(root: int, path: str, flags: int = os.O_PATH) -> int:
    """Open `path` as seen by a process whose root is the directory `root`."""
    return openat2(root, path, flags, resolve=_IN_ROOT)


def open_no_symlinks(root: int, path: str, flags: int = os.O_PATH) -> int:
    """Open `path` below `root`, refusing (ELOOP) any symbolic link in it, the last component included."""
    return openat2(root, path.lstrip("/") or ".", flags, resolve=_IN_ROOT | RESOLVE_NO_SYMLINKS)


def make_directory(root: int, path: str, mode: int = 0o755) -> int:
    """Open the directory `path` (O_PATH), making what is missing of it.

    Links in the path are followed inside the root, dangling ones too: their targets are made, as `mkdir -p` in the
    container would. Raises OSError, ENOTDIR where a component is something else.
    """
    return _walk(root, path, mode, last_is_directory=True)


def make_file(root: int, path: str, mode: int = 0o644) -> int:
    """Open `path` (O_PATH), making an empty regular file and the directories above it where they are missing."""
    return _walk(root, path, mode, last_is_directory=False)


def open_parent(root: int, path: str, mode: int = 0o755) -> tuple[int, str]:
    """The directory that holds `path`, made where missing, and the last component of `path`."""
    parent, name = os.path.split(path.rstrip("/"))
    return make_directory(root, parent or "/", mode), name


def _walk(root: int, path: str, mode: int, *, last_is_directory: bool) -> int:
    """Try the kernel's own walk first: one call when everything exists. Else make components one by one."""
    flags = os.O_PATH | (os.O_DIRECTORY if last_is_directory else 0)
    try:
        return open_in_root(root, path, flags)
    except OSError as error:
        if error.errno != ENOENT:
            raise
    done = ""
    pending = [c for c in path.split("/") if c and c != "."]
    links = 0
    while pending:
        name = pending.pop(0)
        if name == "..":
            done = os.path.dirname(done)
            continue
        is_last = not pending
        parent = open_in_root(root, done or "/", os.O_PATH | os.O_DIRECTORY)
        try:
            make_directory = not is_last or last_is_directory
            target = _step(parent, name, mode if is_last else 0o755, make_directory=make_directory)
        finally:
            os.close(parent)
        if target is None:
            done = f"{done}/{name}"
            continue
        links += 1
        if links > _LINKS_MAX:
            raise OSError(ELOOP, os.strerror(ELOOP), path)
        if target.startswith("/"):
            done = ""
        pending = [c for c in target.split("/") if c and c != "."] + pending
    return open_in_root(root, done or "/", flags)


def _step(parent: int, name: str, mode: int, *, make_directory: bool) -> str | None:
    """Make `name` in `parent` unless it exists; return its target if it is a symbolic link."""
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno not in (ENOENT, 22):  # EINVAL: it exists and is no link
            raise
        if error.errno != ENOENT:
            return None
    try:
        if make_directory:
            os.mkdir(name, mode, dir_fd=parent)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=parent))
    except FileExistsError:
        pass  # made by someone else since: the walk that follows judges what it is
    return None

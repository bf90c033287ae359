"""Copy a directory tree by descriptors, for `tmpcopyup`. May import kernel only."""

from __future__ import annotations

import os
import stat

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_tree(source: int, target: int) -> None:
    """Copy what the directory `source` (O_PATH is enough) holds into the directory `target`; never follows links."""
    here = os.open(".", _DIRECTORY, dir_fd=source)
    there = os.open(".", _DIRECTORY, dir_fd=target)
    try:
        _copy_directory(here, there)
    finally:
        os.close(here)
        os.close(there)


def _copy_directory(here: int, there: int) -> None:
    for name in os.listdir(here):
        status = os.stat(name, dir_fd=here, follow_symlinks=False)
        _copy_entry(name, status, here, there)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=there, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=there)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=there, follow_symlinks=False)


def _copy_entry(name: str, status: os.stat_result, here: int, there: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        os.mkdir(name, 0o700, dir_fd=there)
        inner_here = os.open(name, _DIRECTORY, dir_fd=here)
        inner_there = os.open(name, _DIRECTORY, dir_fd=there)
        try:
            _copy_directory(inner_here, inner_there)
        finally:
            os.close(inner_here)
            os.close(inner_there)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=here), name, dir_fd=there)
    elif stat.S_ISREG(status.st_mode):
        _copy_file(name, here, there)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=there)


def _copy_file(name: str, here: int, there: int) -> None:
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=here)
    target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=there)
    try:
        while os.sendfile(target, source, None, 1 << 20):
            pass
    finally:
        os.close(source)
        os.close(target)

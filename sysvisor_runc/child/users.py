"""Read a root file system's own passwd and group files (passwd(5), group(5)), never NSS.

May import kernel and child.
"""

from __future__ import annotations

import os
import stat

from sysvisor_runc.child import paths

# A passwd file larger than this is not read to its end: it belongs to a stranger.
_SIZE_MAX = 1 << 20
# The last one means "unchanged" to the kernel, and of a larger one it would take the lower half: 4294967296 is root.
ID_MAX = (1 << 32) - 2


def home_of(root: int, uid: int) -> str:
    """The home directory of `uid` in the root file system `root`, `/` where it has none."""
    for fields in _rows(root, "/etc/passwd", 7):
        if fields[2] == str(uid) and fields[5]:
            return fields[5]
    return "/"


def user_ids(root: int, name: str) -> tuple[int, int] | None:
    """Uid and primary gid of the user `name`, None where passwd has no such row."""
    for fields in _rows(root, "/etc/passwd", 7):
        if fields[0] == name and is_id(fields[2]) and is_id(fields[3]):
            return int(fields[2]), int(fields[3])
    return None


def primary_group(root: int, uid: int) -> int | None:
    """The primary gid of `uid`."""
    for fields in _rows(root, "/etc/passwd", 7):
        if fields[2] == str(uid) and is_id(fields[3]):
            return int(fields[3])
    return None


def group_id(root: int, name: str) -> int | None:
    """The gid of the group `name`."""
    for fields in _rows(root, "/etc/group", 4):
        if fields[0] == name and is_id(fields[2]):
            return int(fields[2])
    return None


def groups_of(root: int, name: str) -> list[int]:
    """The gids of the groups that list the user `name`."""
    return [
        int(fields[2]) for fields in _rows(root, "/etc/group", 4) if is_id(fields[2]) and name in fields[3].split(",")
    ]


def name_of(root: int, uid: int) -> str | None:
    """The user name of `uid`."""
    for fields in _rows(root, "/etc/passwd", 7):
        if fields[2] == str(uid):
            return fields[0]
    return None


def is_id(text: str) -> bool:
    """Whether `text` is a user or group id as a number."""
    return text.isascii() and text.isdigit() and len(text) <= len(str(ID_MAX)) and int(text) <= ID_MAX


def _rows(root: int, path: str, fields: int) -> list[list[str]]:
    try:
        fd = _open_regular(root, path)
    except OSError:
        return []
    try:
        data = os.read(fd, _SIZE_MAX)
    except OSError:
        return []
    finally:
        os.close(fd)
    rows = []
    for line in data.decode("utf-8", "replace").splitlines():
        columns = line.split(":")
        if len(columns) >= fields:
            rows.append(columns)
    return rows


def _open_regular(root: int, path: str) -> int:
    """Open `path` for reading if it is a regular file: to open a device may do things, such as rewind a tape.

    Raises OSError, EINVAL for anything else.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
    found = paths.open_in_root(root, path)
    try:
        status = os.fstat(found)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(22, os.strerror(22), path)
        try:
            # The very file that was looked at, whatever its name leads to by now.
            fd = os.open(f"/proc/self/fd/{found}", flags | os.O_CLOEXEC)
        except FileNotFoundError:  # no procfs here
            fd = paths.open_in_root(root, path, flags)
        if not os.path.samestat(status, os.fstat(fd)):
            os.close(fd)
            raise OSError(22, os.strerror(22), path)
        return fd
    finally:
        os.close(found)

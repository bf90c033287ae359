"""Read a root file system's own passwd and group files (passwd(5), group(5)), never NSS.

May import kernel and child.
"""

from __future__ import annotations

import os

from sysvisor_runc.child import paths

# A passwd file larger than this is not read to its end: it belongs to a stranger.
_SIZE_MAX = 1 << 20


def home_of(root: int, uid: int) -> str:
    """The home directory of `uid` in the root file system `root`, `/` where it has none."""
    for fields in _rows(root, "/etc/passwd", 7):
        if fields[2] == str(uid) and fields[5]:
            return fields[5]
    return "/"


def user_ids(root: int, name: str) -> tuple[int, int] | None:
    """Uid and primary gid of the user `name`, None where passwd has no such row."""
    for fields in _rows(root, "/etc/passwd", 7):
        if fields[0] == name and fields[2].isdigit() and fields[3].isdigit():
            return int(fields[2]), int(fields[3])
    return None


def primary_group(root: int, uid: int) -> int | None:
    """The primary gid of `uid`."""
    for fields in _rows(root, "/etc/passwd", 7):
        if fields[2] == str(uid) and fields[3].isdigit():
            return int(fields[3])
    return None


def group_id(root: int, name: str) -> int | None:
    """The gid of the group `name`."""
    for fields in _rows(root, "/etc/group", 4):
        if fields[0] == name and fields[2].isdigit():
            return int(fields[2])
    return None


def groups_of(root: int, name: str) -> list[int]:
    """The gids of the groups that list the user `name`."""
    return [
        int(fields[2])
        for fields in _rows(root, "/etc/group", 4)
        if fields[2].isdigit() and name in fields[3].split(",")
    ]


def name_of(root: int, uid: int) -> str | None:
    """The user name of `uid`."""
    for fields in _rows(root, "/etc/passwd", 7):
        if fields[2] == str(uid):
            return fields[0]
    return None


def _rows(root: int, path: str, fields: int) -> list[list[str]]:
    try:
        fd = paths.open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
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

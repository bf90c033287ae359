"""`--user`: ids, or names looked up in the container's own passwd and group files."""

from __future__ import annotations

import os

from sysvisor_runc.child import users
from sysvisor_runc.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.state.record import Record


def resolve_user(text: str, record: Record) -> tuple[int, int | None, list[int]]:
    """Uid, gid (None: as it was) and supplementary groups for `USER[:GROUP]`.

    A number is an id, even where a user has that name (CVE-2016-3697).

    Raises:
        UsageError: an unknown name, or a number that is no id.
    """
    user, colon, group = text.partition(":")
    if not user:
        # A row without a name in the container's own file would be found.
        raise UsageError(f"--user: bad uid: {text!r} names no user")
    root = os.open(f"/proc/{record['initPid']}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        gid: int | None = None
        groups: list[int] = []
        if user.isascii() and user.isdigit():
            uid = _id(user, "uid")
        else:
            found = users.user_ids(root, user)
            if found is None:
                raise UsageError(f"--user: bad uid: no user {user!r} in the container's /etc/passwd")
            uid, gid = found
            groups = users.groups_of(root, user)
        if colon:
            gid = _group(root, group)
        return uid, gid, groups
    finally:
        os.close(root)


def _group(root: int, group: str) -> int:
    if group.isascii() and group.isdigit():
        return _id(group, "gid")
    found = users.group_id(root, group)
    if found is None:
        raise UsageError(f"--user: bad gid: no group {group!r} in the container's /etc/group")
    return found


def _id(text: str, kind: str) -> int:
    if not users.is_id(text):
        raise UsageError(f"--user: bad {kind}: {text} is larger than {users.ID_MAX}")
    return int(text)

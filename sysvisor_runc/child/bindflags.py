"""What the options of a bind mount mean for a mount that has flags already. Loaded where a bind has such options.

As runc has it: any word about a flag sets them all, and those not named are cleared (`bind,nodev` of a read-only mount
is writable); only the access-time mode stays where none is asked for, as the kernel's remount does it. A container with
a user namespace may not take away what the host's mount had (mount_namespaces(7), locked flags): what is not named
stays, and clearing it by name fails. May import kernel only.
"""

from __future__ import annotations

import os

from sysvisor_runc.kernel import mount as m

# statvfs f_flag bits (include/linux/statfs.h) by attribute.
_FLAGS = (
    (0x0001, m.MOUNT_ATTR_RDONLY),
    (0x0002, m.MOUNT_ATTR_NOSUID),
    (0x0004, m.MOUNT_ATTR_NODEV),
    (0x0008, m.MOUNT_ATTR_NOEXEC),
    (0x2000, m.MOUNT_ATTR_NOSYMFOLLOW),
)
_ST_NOATIME, _ST_NODIRATIME, _ST_RELATIME = 0x0400, 0x0800, 0x1000
_LOCKABLE = m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC
_ALL = _LOCKABLE | m.MOUNT_ATTR_NOSYMFOLLOW
_ATIME = m.MOUNT_ATTR__ATIME | m.MOUNT_ATTR_NODIRATIME


def resolve(tree: int, wanted: int, cleared: int, *, locked: bool) -> tuple[int, int]:
    """Attributes to set and to clear on `tree`, from those that the options set and clear.

    Raises:
        PermissionError: `locked`, and the options clear or change what the mount has.
    """
    current = _attributes(os.fstatvfs(tree).f_flag)
    result = wanted & _ALL
    if locked:
        if current & cleared & _LOCKABLE:
            raise PermissionError(1, "operation not permitted")
        result |= current & _LOCKABLE
    clear = _ALL & ~result
    if wanted & _ATIME or cleared & m.MOUNT_ATTR__ATIME == m.MOUNT_ATTR__ATIME:  # the latter is `relatime`
        asked = wanted & _ATIME
        if locked and asked != current & _ATIME:
            raise PermissionError(1, "operation not permitted")
        result |= asked
        clear |= m.MOUNT_ATTR__ATIME | (_ATIME & ~asked)
    return result, clear


def _attributes(flags: int) -> int:
    found = 0
    for bit, attribute in _FLAGS:
        if flags & bit:
            found |= attribute
    if flags & _ST_NODIRATIME:
        found |= m.MOUNT_ATTR_NODIRATIME
    if flags & _ST_NOATIME:
        return found | m.MOUNT_ATTR_NOATIME
    return found if flags & _ST_RELATIME else found | m.MOUNT_ATTR_STRICTATIME

"""The mount API: fd-based calls (Linux >= 5.2, mount_setattr >= 5.12) and the older path-based ones.

Kernel names and argument order (open_tree(2), fsopen(2), fsconfig(2), fsmount(2), move_mount(2), mount_setattr(2),
mount(2), umount2(2), pivot_root(2)). No policy.
"""

import os

from sysvisor_runc.kernel.syscall import c_path, syscall

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC

MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40

FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6
# fsconfig copies a string value of at most 256 bytes with its NUL (fs/fsopen.c); longer ones need mount(2).
FSCONFIG_STRING_MAX = 255

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x00
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x00100000
MOUNT_ATTR_NOSYMFOLLOW = 0x00200000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SILENT = 32768
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_I_VERSION = 1 << 23
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

MNT_DETACH = 2


def open_tree(dirfd: int, path: str | bytes, flags: int) -> int:
    """A mount, or with OPEN_TREE_CLONE a detached copy of it, as a file descriptor (open_tree(2))."""
    return syscall("open_tree", dirfd, c_path(path), flags, operand=_show(path))


def move_mount(from_dirfd: int, from_path: str, to_dirfd: int, to_path: str, flags: int, *, operand: str = "") -> None:
    """Attach or move a mount (move_mount(2)); `operand` names the destination in an error."""
    syscall("move_mount", from_dirfd, c_path(from_path), to_dirfd, c_path(to_path), flags, operand=operand or to_path)


def fsopen(fstype: str, flags: int = FSOPEN_CLOEXEC) -> int:
    """A context in which a new file system instance is configured (fsopen(2))."""
    return syscall("fsopen", c_path(fstype), flags, operand=fstype)


def fsconfig(fd: int, command: int, key: str | None = None, value: str | None = None, aux: int = 0) -> None:
    """Set one parameter of a context, or with FSCONFIG_CMD_CREATE make the super block (fsconfig(2))."""
    key_arg = 0 if key is None else c_path(key)
    value_arg = 0 if value is None else c_path(value)
    operand = "" if key is None else key if value is None else f"{key}={value}"
    syscall("fsconfig", fd, command, key_arg, value_arg, aux, operand=operand)


def fsmount(fd: int, attributes: int = 0, flags: int = FSMOUNT_CLOEXEC, *, operand: str = "") -> int:
    """A detached mount of the configured file system (fsmount(2))."""
    return syscall("fsmount", fd, flags, attributes, operand=operand)


def mount_setattr(
    dirfd: int,
    path: str,
    flags: int,
    *,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
    operand: str = "",
) -> None:
    """Change the attributes of a mount, or with AT_RECURSIVE of a tree (mount_setattr(2), Linux 5.12).

    struct mount_attr is four u64: attr_set, attr_clr, propagation, userns_fd.
    """
    attr = b"".join(n.to_bytes(8, "little") for n in (attr_set, attr_clr, propagation, userns_fd))
    syscall("mount_setattr", dirfd, c_path(path), flags, attr, len(attr), operand=operand or path)


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    """mount(2), for what the fd-based calls cannot do."""
    syscall(
        "mount",
        0 if source is None else c_path(source),
        c_path(target),
        0 if fstype is None else c_path(fstype),
        flags,
        0 if data is None else c_path(data),
        operand=target,
    )


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    syscall("umount2", c_path(target), flags, operand=target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    syscall("pivot_root", c_path(new_root), c_path(put_old), operand=new_root)


def fs_log(fd: int) -> str:
    """What the kernel said about a failed configuration: the messages queued on an fsopen(2) context, joined."""
    lines: list[str] = []
    try:
        while len(lines) < 8:
            lines.append(os.read(fd, 512).decode("utf-8", "replace")[2:].strip())
    except OSError:
        pass  # ENODATA: the queue is empty
    return "; ".join(lines)


def _show(path: str | bytes) -> str:
    return path if isinstance(path, str) else os.fsdecode(path)

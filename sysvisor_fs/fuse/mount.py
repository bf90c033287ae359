"""FUSE mounts without fusermount: made, found and cloned in the daemon's own mount namespace.

The calls of `kernel.mount` hold the GIL, which must not happen to a call that looks up a path in a mount of ours: the
FUSE thread could not answer it. So these go through ctypes, which lets go of the GIL.
"""

from __future__ import annotations

import ctypes
import os

from sysvisor_runc.kernel import mount as m
from sysvisor_runc.kernel.syscall import NUMBERS, SyscallError, c_path

FSTYPE = "sysvisorfs"  # shown as fuse.sysvisorfs
_ATTRIBUTES = m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC
_FLAGS = m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC | m.MS_RELATIME
_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *args: int | bytes, operand: str) -> int:
    number = NUMBERS.get(name)
    if number is None:
        raise SyscallError(38, name, operand)
    words = [ctypes.c_long(arg) if isinstance(arg, int) else ctypes.c_char_p(arg) for arg in args]
    result: int = _libc.syscall(ctypes.c_long(number), *words)
    if result == -1:
        raise SyscallError(ctypes.get_errno(), name, operand)
    return result


def open_device() -> int:
    """A new connection: /dev/fuse, opened anew.

    Raises:
        OSError: there is no such device, or no permission.
    """
    return os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)


def mount(fd: int, target: str) -> None:
    """Mount the connection's file system. Everybody may use it, as far as owner and mode let them: the kernel decides.

    Raises:
        SyscallError: it cannot be mounted.
    """
    try:
        _mount_new(fd, target)
    except OSError:  # fsopen(2) came with Linux 5.2, and FUSE speaks it since 5.6
        _mount_old(fd, target)


def _options(fd: int) -> dict[str, str]:
    return {"fd": str(fd), "rootmode": "40000", "user_id": "0", "group_id": "0"}


def _mount_new(fd: int, target: str) -> None:
    context = m.fsopen("fuse")
    try:
        for key, value in {"source": "sysvisor-fs", "subtype": FSTYPE, **_options(fd)}.items():
            m.fsconfig(context, m.FSCONFIG_SET_STRING, key, value)
        for flag in ("allow_other", "default_permissions"):
            m.fsconfig(context, m.FSCONFIG_SET_FLAG, flag)
        m.fsconfig(context, m.FSCONFIG_CMD_CREATE)
        detached = m.fsmount(context, _ATTRIBUTES)
    finally:
        os.close(context)
    try:
        # move_mount looks at no path of the new mount, so it may hold the GIL; its target is a tmpfs.
        m.move_mount(detached, "", m.AT_FDCWD, target, m.MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(detached)


def _mount_old(fd: int, target: str) -> None:
    options = ",".join(f"{key}={value}" for key, value in _options(fd).items())
    m.mount("sysvisor-fs", target, f"fuse.{FSTYPE}", _FLAGS, f"{options},allow_other,default_permissions")


def unmount(target: str) -> None:
    """Take the mount out of the name space; what is open on it goes on."""
    _call("umount2", c_path(target), m.MNT_DETACH, operand=target)


def mounted_below(directory: str) -> set[str]:
    """The names right below a directory that have a mount on them."""
    with open("/proc/thread-self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split(" ")[4] for line in file]
    return {point[len(directory) + 1 :] for point in points if point.startswith(f"{directory}/")}


def clone(path: str) -> int:
    """A detached mount of `path` alone, for somebody to attach elsewhere (open_tree(2)).

    Raises:
        SyscallError: there is no such path.
    """
    return _call(
        "open_tree", m.AT_FDCWD, c_path(path), m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC | m.AT_SYMLINK_NOFOLLOW,
        operand=path,
    )  # fmt: skip

"""Private instances of procfs and sysfs, mounted nowhere: what the host has mounted over its own is not in the way."""

from __future__ import annotations

import os

from sysvisor_runc.kernel import mount, statfs

SYSFS_MAGIC = 0x62656572
_MAGIC = {"proc": statfs.PROC_SUPER_MAGIC, "sysfs": SYSFS_MAGIC}
_instances: dict[str, int] = {}


def new(fstype: str) -> int:
    """A directory descriptor of a new instance; a sysfs shows the network namespace of the calling thread."""
    context = mount.fsopen(fstype)
    try:
        mount.fsconfig(context, mount.FSCONFIG_CMD_CREATE)
        flags = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC
        return mount.fsmount(context, flags, operand=fstype)
    finally:
        os.close(context)


def _the(fstype: str, place: str) -> int:
    fd = _instances.get(fstype)
    if fd is None:
        try:
            fd = new(fstype)
        except OSError:  # before Linux 5.2, or where mounting is not ours to do
            fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if statfs.fstatfs(fd) != _MAGIC[fstype]:
                os.close(fd)
                raise
        # Two threads may come here at once: one of the two stays open unused, which harms nobody.
        fd = _instances.setdefault(fstype, fd)
    return fd


def procfs() -> int:
    """The procfs of the daemon's pid namespace."""
    return _the("proc", "/proc")


def sysfs() -> int:
    """The sysfs of the daemon's network namespace."""
    return _the("sysfs", "/sys")

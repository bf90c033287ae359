"""Change the root without pivot_root(2), for `--no-pivot` (a host that runs from its initramfs). Rarely loaded.

The host's tree stays below, so whatever of procfs and sysfs is mounted there is taken away first: seen in full, it
would let a nested user namespace mount its own without what masks the container's (mount_too_revealing). May import
kernel and child.mounts.
"""

from __future__ import annotations

import os

from sysvisor_runc.child.mounts import attach, new_mount
from sysvisor_runc.kernel import mount as m

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.child.mounts import Rootfs


def move_root(rootfs: Rootfs, place: str) -> None:
    """Move the new root, mounted at `place`, over `/`, and change to it."""
    for path in reversed(_revealing(rootfs, place)):
        _hide(path)
    if place != "/":
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            attach(rootfs.root, root, "/")
        finally:
            os.close(root)
    os.fchdir(rootfs.root)
    os.chroot(".")
    os.chdir("/")


def _revealing(rootfs: Rootfs, place: str) -> list[str]:
    """Mount points of procfs and sysfs outside `place`, in the order they were mounted (proc_pid_mountinfo(5))."""
    fd = os.open("self/mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=rootfs.proc)
    with open(fd, "rb") as file:
        lines = file.read().splitlines()
    found = []
    for line in lines:
        fields, _, tail = line.partition(b" - ")
        path = os.fsdecode(_unescape(fields.split(b" ")[4]))
        inside = place != "/" and f"{path}/".startswith(f"{place}/")
        if tail.split(b" ", 1)[0] in (b"proc", b"sysfs") and not inside:
            found.append(path)
    return found


def _unescape(path: bytes) -> bytes:
    for text, byte in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        path = path.replace(text, byte)
    return path


def _hide(path: str) -> None:
    try:
        m.umount2(path, m.MNT_DETACH)
        return
    except OSError:
        pass  # locked in a user namespace
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return  # gone with the mount above it, or a single file
    try:
        cover = new_mount("tmpfs", "tmpfs", (("nr_inodes", "1"), ("mode", "555")), path)
        attach(cover, fd, path)
        os.close(cover)
    finally:
        os.close(fd)

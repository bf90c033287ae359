"""The container's pseudo-terminal: allocated from its own devpts, by descriptor. May import kernel and child."""

from __future__ import annotations

import fcntl
import os
import termios

from sysvisor_runc.child import paths
from sysvisor_runc.child.mounts import attach
from sysvisor_runc.kernel import mount as m

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.child.mounts import Rootfs

TIOCSPTLCK = 0x40045431
TIOCGPTN = 0x80045430
# Opens the other end of a pseudo-terminal without a path (Linux 4.13): no symbolic link can get between.
TIOCGPTPEER = 0x5441

_DEVPTS_SUPER_MAGIC = 0x1CD1


def open_terminal(rootfs: Rootfs) -> tuple[int, int]:
    """A new pseudo-terminal as `(master, slave)`, from the container's devpts, with the kernel's settings."""
    devpts = rootfs.kept.get("devpts")
    if devpts is not None:
        master = os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=devpts)
    else:
        master = paths.open_in_root(rootfs.root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(master, TIOCSPTLCK, (0).to_bytes(4, "little"))
    slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return master, slave


def show_as_dev_console(rootfs: Rootfs, master: int, slave: int) -> None:
    """Bind the terminal on /dev/console.

    The file is found in the container's devpts by number and must be the very device that the slave is: a container
    sharing the file system may have put something else there (CVE-2025-52565).
    """
    number = int.from_bytes(fcntl.ioctl(master, TIOCGPTN, bytes(4)), "little")
    devpts = rootfs.kept.get("devpts")
    if devpts is None:
        devpts = paths.open_in_root(rootfs.root, "/dev/pts", os.O_PATH | os.O_DIRECTORY)
    flags = m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC | m.AT_SYMLINK_NOFOLLOW
    tree = m.open_tree(devpts, str(number), flags)
    try:
        shown, real = os.fstat(tree), os.fstat(slave)
        if (shown.st_rdev, shown.st_ino, shown.st_dev) != (real.st_rdev, real.st_ino, real.st_dev):
            raise OSError(19, os.strerror(19), "/dev/console")  # ENODEV
        destination = paths.make_file(rootfs.root, "/dev/console", 0o000)
        try:
            attach(tree, destination, "/dev/console")
        finally:
            os.close(destination)
    finally:
        os.close(tree)


def resize(terminal: int, height: int, width: int) -> None:
    """Set the window size in characters (struct winsize: rows, columns, two unused)."""
    size = height.to_bytes(2, "little") + width.to_bytes(2, "little") + bytes(4)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)


def make_controlling(slave: int) -> None:
    """Make the terminal the session's and put it on stdin, stdout and stderr; the caller has called setsid(2)."""
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(slave, fd, inheritable=True)
    if slave > 2:
        os.close(slave)

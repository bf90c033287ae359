"""The container's pseudo-terminal: allocated from its own devpts, by descriptor. May import kernel and child."""

from __future__ import annotations

import fcntl
import os
import stat
import termios

from sysvisor_runc.child import paths
from sysvisor_runc.child.channel import CONSOLE
from sysvisor_runc.child.mounts import attach, refuse_proc
from sysvisor_runc.kernel import mount as m
from sysvisor_runc.kernel.statfs import DEVPTS_SUPER_MAGIC, fstatfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.child.mounts import Rootfs
    from sysvisor_runc.child.plan import ConsolePlan

TIOCSPTLCK = 0x40045431
TIOCGPTN = 0x80045430
# Opens the other end of a pseudo-terminal without a path (Linux 4.13): no symbolic link can get between.
TIOCGPTPEER = 0x5441

_PTMX = os.makedev(5, 2)


def set_up(wanted: ConsolePlan, rootfs: Rootfs, handover: int, *, show: bool, now: bool) -> None:
    """Open the container's terminal, have the host take its master, and make it ours.

    `handover`: the socket that the master goes through; -1: the host takes it out of us. `show` it as /dev/console;
    `now`: see `make_controlling`.
    """
    master, slave = open_terminal(rootfs)
    if wanted.height or wanted.width:
        resize(slave, wanted.height, wanted.width)
    if show:
        show_as_dev_console(rootfs, master, slave)
    os.fchown(slave, wanted.uid, -1)
    if handover >= 0:
        from sysvisor_runc.child import late  # the host has loaded it

        late.send(late.end(handover), [master], -1, {})
    rootfs.ask_host(CONSOLE, str(master))
    os.close(master)
    make_controlling(slave, now=now)


def open_terminal(rootfs: Rootfs) -> tuple[int, int]:
    """A new pseudo-terminal as `(master, slave)`, from the container's devpts, with the kernel's settings."""
    devpts = rootfs.kept.get("devpts")
    if devpts is not None:
        master = os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=devpts)
    else:
        master = _open_found_ptmx(rootfs)
    fcntl.ioctl(master, TIOCSPTLCK, (0).to_bytes(4, "little"))
    slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return master, slave


def _open_found_ptmx(rootfs: Rootfs) -> int:
    """Open /dev/pts/ptmx of a devpts that we have not mounted ourselves, after making sure that it is one.

    `exec` looks into a running container, whose root may have put any device in its place.
    """
    found = paths.open_in_root(rootfs.root, "/dev/pts/ptmx")
    try:
        status = os.fstat(found)
        if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _PTMX or fstatfs(found) != DEVPTS_SUPER_MAGIC:
            raise OSError(19, "not a ptmx of devpts", "/dev/pts/ptmx")  # ENODEV
        flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
        if rootfs.proc >= 0:
            return os.open(f"self/fd/{found}", flags, dir_fd=rootfs.proc)
        return os.open(f"/proc/self/fd/{found}", flags)
    finally:
        os.close(found)


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
            refuse_proc(rootfs, destination, "/dev/console")
            attach(tree, destination, "/dev/console")
        finally:
            os.close(destination)
    finally:
        os.close(tree)


def resize(terminal: int, height: int, width: int) -> None:
    """Set the window size in characters (struct winsize: rows, columns, two unused)."""
    size = height.to_bytes(2, "little") + width.to_bytes(2, "little") + bytes(4)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)


def make_controlling(slave: int, *, now: bool = True) -> None:
    """Make the terminal the session's and put it on stdin, stdout and stderr; the caller has called setsid(2).

    Not `now`: a session that is still to begin takes it; that of ours would hang it up when we end.
    """
    if now:
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(slave, fd, inheritable=True)
    if slave > 2:
        os.close(slave)

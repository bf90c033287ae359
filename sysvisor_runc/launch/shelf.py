"""A helper process with a mount namespace of its own, where mounts are put on a shelf: attached, worked on, and taken
back as detached mounts. What happens in there shows nowhere else and ends with it.
"""

from __future__ import annotations

import os
import stat

from sysvisor_runc.errors import LaunchError, reason
from sysvisor_runc.kernel import file
from sysvisor_runc.kernel import mount as m
from sysvisor_runc.kernel.namespaces import CLONE_NEWNS, clone3
from sysvisor_runc.kernel.pidfd import pidfd_getfd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


def with_shelf(what: str, work: Callable[[int], list[int]]) -> list[int]:
    """The descriptors that `work` opens in the helper, which starts in the empty shelf whose descriptor it is given.

    Raises:
        LaunchError: `work` failed, so `what` could not be done.
    """
    report, release = os.pipe(), os.pipe()
    pid, pidfd = clone3(CLONE_NEWNS)
    if pid == 0:
        os.close(release[1])
        _work_and_wait(work, report[1], release[0])
    os.close(report[1])
    os.close(release[0])
    try:
        answer = file.rest(report[0]).decode("utf-8", "surrogateescape")
        word, _, rest = answer.partition(" ")
        if word != "done":
            raise LaunchError(f"{what}: {rest or 'the helper ended unexpectedly'}")
        return [pidfd_getfd(pidfd, int(number)) for number in rest.split()]
    finally:
        os.close(report[0])
        os.close(release[1])
        os.close(pidfd)
        os.waitpid(pid, 0)


def put(shelf: int, name: str, tree: int) -> None:
    """Attach the detached mount `tree` on the shelf under `name`."""
    _attach(tree, _place(shelf, name, tree))


def _work_and_wait(work: Callable[[int], list[int]], report: int, release: int) -> NoReturn:
    """The helper: tell the numbers of what it opened on `report` and keep it open until `release` closes."""
    try:
        m.mount(None, "/", None, m.MS_PRIVATE | m.MS_REC)
        shelf = _new_tmpfs()
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        _attach(shelf, root)
        # A process whose root is mounted over counts as one in a chroot, which may make no user namespace.
        os.fchdir(shelf)
        os.chroot(".")
        os.write(report, f"done {' '.join(map(str, work(shelf)))}".encode())
        os.close(report)
        os.read(release, 1)
    except OSError as error:
        text = str(error) if hasattr(error, "call") else reason(error)
        os.write(report, f"failed {text}".encode("utf-8", "surrogateescape"))
    except LaunchError as error:
        os.write(report, f"failed {error}".encode("utf-8", "surrogateescape"))
    finally:
        os._exit(0)


def _new_tmpfs() -> int:
    context = m.fsopen("tmpfs")
    m.fsconfig(context, m.FSCONFIG_SET_STRING, "mode", "755")
    m.fsconfig(context, m.FSCONFIG_CMD_CREATE)
    return m.fsmount(context)


def _place(shelf: int, name: str, tree: int) -> int:
    """An empty file or directory to mount `tree` on, open (O_PATH)."""
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        os.mkdir(name, 0o755, dir_fd=shelf)
    else:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=shelf))
    return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=shelf)


def _attach(tree: int, destination: int) -> None:
    flags = m.MOVE_MOUNT_F_EMPTY_PATH | m.MOVE_MOUNT_T_EMPTY_PATH
    m.move_mount(tree, "", destination, "", flags)

"""What the standard streams of a container are, as criu names what restore may hand in anew."""

from __future__ import annotations

import os
import stat
import time

from sysvisor_runc.criu.mounts import mount_id, read

# A shell has a stream elsewhere while it redirects the output of a command: look again, some milliseconds apart.
_LOOKS, _APART = 6, 0.007


def streams(pid: int) -> list[str]:
    """The names of standard input, output and error of process `pid`, as far as they are open.

    A pipe is `pipe:[inode]`; a file or device that was opened outside the container is `file[mount:inode]`; the rest is
    told by its path and is the container's own.
    """
    own = _mounts(pid)
    found = _look(pid, own)
    for _ in range(_LOOKS - 1):
        if all(_leads_out(name) for name in found):
            break
        time.sleep(_APART)
        found = [name if _leads_out(name) else again for name, again in zip(found, _look(pid, own), strict=False)]
    return found


def _leads_out(name: str) -> bool:
    return name.startswith(("pipe:", "file["))


def _look(pid: int, own: set[int]) -> list[str]:
    found = []
    for number in range(3):
        try:
            link = os.readlink(f"/proc/{pid}/fd/{number}")
            status = os.stat(f"/proc/{pid}/fd/{number}")
            mount = mount_id(pid, number)
        except OSError:
            break
        outside = mount not in own and stat.S_IFMT(status.st_mode) in (stat.S_IFREG, stat.S_IFCHR)
        found.append(f"file[{mount:x}:{status.st_ino:x}]" if outside else link)
    return found


def _mounts(pid: int) -> set[int]:
    return {int(line.split(" ", 1)[0]) for line in read(f"/proc/{pid}/mountinfo").splitlines()}

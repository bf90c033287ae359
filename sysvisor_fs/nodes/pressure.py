"""/proc/pressure/*: what the container's processes have waited for, with triggers; and /proc/slabinfo."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from sysvisor_fs.node import FOREVER, File
from sysvisor_fs.passthrough import enter, identity
from sysvisor_fs.views import files
from sysvisor_fs.views.hierarchy import UNIFIED, home

if TYPE_CHECKING:
    from sysvisor_fs.node import Caller, Container

# A trigger without CAP_SYS_RESOURCE has a window of a multiple of two seconds (kernel/sched/psi.c): others cost a
# real-time thread of the host's.
_WINDOW_US = 2_000_000
_LIMIT = 1 << 32  # the kernel reads %u, and takes what is beyond for another number
_KINDS = (b"some", b"full")


class Pressure(File):
    """One of cpu, io, memory, irq: the file of the container's cgroup in the unified hierarchy."""

    valid = FOREVER

    mode = 0o666
    pollable = True

    def __init__(self, name: str) -> None:
        self.name = name

    def _path(self, container: Container) -> str:
        path = container.cgroups.get(UNIFIED)
        if path is None or not os.path.exists(file := f"{path}/{self.name}.pressure"):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))  # as where it is switched off
        return file

    def read(self, container: Container, caller: Caller) -> bytes:
        """EOPNOTSUPP without a cgroup v2: the host's pressure is not the container's."""
        return files.read(self._path(container))

    def trigger(self, container: Container, caller: Caller, data: bytes) -> int:
        """A descriptor of the cgroup's own file with the trigger set."""
        text, path = condition(data), self._path(container)
        # The kernel looks at the credentials that the file was opened with (f_cred): with the daemon's there is a
        # real-time thread whatever the window.
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
        fd = enter.without(1 << identity.CAP_SYS_RESOURCE, lambda: os.open(path, flags))
        try:
            os.write(fd, text)
        except OSError:
            os.close(fd)
            raise
        return fd


def condition(data: bytes) -> bytes:
    """A trigger, written as the kernel reads it and cannot take it for another.

    Raises:
        OSError: EINVAL.
    """
    words = data.rstrip(b"\0\n").split()
    if len(words) != 3 or words[0] not in _KINDS or not all(word.isdigit() and len(word) < 20 for word in words[1:]):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    threshold, window = int(words[1]), int(words[2])
    if threshold >= _LIMIT or window >= _LIMIT or window % _WINDOW_US:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return b"%s %d %d\0" % (words[0], threshold, window)


class Slabinfo(File):
    """/proc/slabinfo: the container's own where the kernel lists it (v1, before 5.9), else the head alone."""

    valid = FOREVER

    mode = 0o400
    HEAD = (
        b"slabinfo - version: 2.1\n# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>"
        b" : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>\n"
    )

    def read(self, container: Container, caller: Caller) -> bytes:
        """Never the host's."""
        place = home(container, "memory")
        if place is not None and not place.v2:
            try:
                return files.read(f"{place.path}/memory.kmem.slabinfo") or self.HEAD
            except OSError:  # newer kernels have the file and refuse to read it
                pass
        return self.HEAD

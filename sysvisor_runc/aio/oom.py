"""Deaths for want of memory as a source of the loop, for any number of containers.

cgroup2 counts them in memory.events, and inotify tells when that changes: one instance for all, since a user may have
128 (fs.inotify.max_user_instances). v1 signals an eventfd that was registered with the cgroup (memory.txt, "OOM
Control"): whenever its limit leaves nothing but to kill, once per time, not per process.
"""

from __future__ import annotations

import errno
import os

from sysvisor_runc.cgroup.counters import keyed
from sysvisor_runc.cgroup.layout import UNIFIED
from sysvisor_runc.errors import CgroupError
from sysvisor_runc.kernel import inotify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.aio.loop import AbstractEventLoop

_CHUNK = 1 << 16
# While a victim dies slowly v1 signals hundreds of times a second: what comes within this time is told as one.
_PAUSE = 0.2


class OomWatch:
    """Calls back whenever the kernel has killed in one of the watched cgroups for want of memory."""

    __slots__ = ("_events", "_loop", "_watched", "_wds")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: dict[str, _Memory] = {}
        self._wds: dict[int, _Memory] = {}
        self._events = -1

    def watch(self, key: str, paths: dict[str, str], killed: Callable[[], None]) -> bool:
        """Call `killed` at every such death in the container named `key`, whose cgroups are `paths` as its record has.

        Whether it can be watched: not so without the memory controller, and not when its cgroup is gone.

        Raises:
            OSError: no descriptor, or no watch, is left.
        """
        self.forget(key)
        try:
            memory = self._open(paths, killed)
        except OSError as error:
            # EINVAL: v1's memory controller built without events (CONFIG_MEMCG_V1), or a dying cgroup.
            if error.errno in (errno.ENOENT, errno.ENODEV, errno.EINVAL, errno.EACCES):
                return False
            raise
        if memory is None:
            return False
        self._watched[key] = memory
        return True

    def _open(self, paths: dict[str, str], killed: Callable[[], None]) -> _Memory | None:
        if "memory" in paths:
            fd = _register_v1(paths["memory"])
            memory = _Memory(paths["memory"], killed, eventfd=fd)
            self._loop.add_reader(fd, self._signalled, memory)
            return memory
        path = paths.get(UNIFIED)
        if path is None or not os.path.exists(f"{path}/memory.events"):
            return None
        if self._events < 0:
            self._events = inotify.inotify_init1()
            self._loop.add_reader(self._events, self._changed)
        wd = inotify.inotify_add_watch(self._events, f"{path}/memory.events", inotify.IN_MODIFY)
        # Counted after the watch is set: what comes between is then told as a change.
        memory = _Memory(path, killed, wd=wd)
        memory.count = memory.counted()
        self._wds[wd] = memory
        return memory

    def check(self, key: str) -> None:
        """Tell at once what is known of `key` and was not told yet: a container may be dead before the loop's turn."""
        memory = self._watched.get(key)
        if memory is not None:
            memory.check()

    def forget(self, key: str) -> None:
        """Stop watching; what was never watched is fine."""
        memory = self._watched.pop(key, None)
        if memory is None:
            return
        if memory.eventfd >= 0:
            self._loop.remove_reader(memory.eventfd)
            os.close(memory.eventfd)
            memory.eventfd = -1
            return
        self._wds.pop(memory.wd, None)
        try:
            inotify.inotify_rm_watch(self._events, memory.wd)
        except OSError:
            pass  # the kernel forgot it together with the file

    def close(self) -> None:
        """Stop watching all of them."""
        for key in list(self._watched):
            self.forget(key)
        if self._events >= 0:
            self._loop.remove_reader(self._events)
            os.close(self._events)
            self._events = -1

    def _signalled(self, memory: _Memory) -> None:
        self._loop.remove_reader(memory.eventfd)
        self._loop.call_later(_PAUSE, self._listen, memory)
        memory.signalled()

    def _listen(self, memory: _Memory) -> None:
        if memory.eventfd >= 0:
            self._loop.add_reader(memory.eventfd, self._signalled, memory)

    def _changed(self) -> None:
        try:
            found = inotify.events(os.read(self._events, _CHUNK))
        except BlockingIOError:
            return
        if any(mask & inotify.IN_Q_OVERFLOW for _, mask in found):
            changed = list(self._wds.values())
        else:
            changed = [self._wds[wd] for wd in {wd for wd, _ in found} if wd in self._wds]
        for memory in changed:
            memory.check()


class _Memory:
    """One memory cgroup: by `eventfd` on v1, by inotify's `wd` and a `count` on cgroup2."""

    __slots__ = ("_killed", "_path", "count", "eventfd", "wd")

    def __init__(self, path: str, killed: Callable[[], None], *, eventfd: int = -1, wd: int = -1) -> None:
        self._path = path
        self._killed = killed
        self.eventfd = eventfd
        self.wd = wd
        self.count = 0

    def counted(self) -> int:
        """How many were killed, in cgroups below included; what is known already once the cgroup is gone."""
        try:
            return keyed(self._path, "memory.events").get("oom_kill", self.count)
        except CgroupError:
            return self.count

    def check(self) -> None:
        if self.wd < 0:
            self.signalled()
            return
        before, self.count = self.count, self.counted()
        if self.count > before:
            self._killed()

    def signalled(self) -> None:
        if self.eventfd < 0:
            return
        try:
            os.read(self.eventfd, 8)
        except BlockingIOError:
            return
        # The end of the cgroup signals too (cgroup-v1/cgroups.rst).
        if os.path.exists(f"{self._path}/cgroup.event_control"):
            self._killed()


def _register_v1(path: str) -> int:
    """An eventfd that the cgroup signals. Raises OSError."""
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        file = os.open(f"{path}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            control = os.open(f"{path}/cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(control, b"%d %d" % (fd, file))
            finally:
                os.close(control)
        finally:
            os.close(file)
    except BaseException:
        os.close(fd)
        raise
    return fd

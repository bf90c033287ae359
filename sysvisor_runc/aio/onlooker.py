"""Tells of containers that others look after: of `run` in the foreground, and of `create` and `start`.

Their `start` comes with a pidfd, and their end is seen by it. Nothing is stored, nothing is started again, and nobody
stays for their sake: it is for readers of events alone.
"""

from __future__ import annotations

import os
import time

from sysvisor_runc import log, supervise
from sysvisor_runc.aio.exits import ExitWatch
from sysvisor_runc.aio.outcome import outcome
from sysvisor_runc.errors import SysvisorError
from sysvisor_runc.state import supervision
from sysvisor_runc.state.observe import observe
from sysvisor_runc.state.process import open_init
from sysvisor_runc.state.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.aio.journal import Journal
    from sysvisor_runc.aio.loop import AbstractEventLoop, TimerHandle
    from sysvisor_runc.aio.oom import OomWatch
    from sysvisor_runc.state.record import Record

_HAS_BEGUN = ("running", "paused")


class _Seen:
    """One container: its init, a pidfd of that, and whether the init is a machine's."""

    __slots__ = ("id", "init", "machine", "pidfd", "state", "timer")

    def __init__(self, container_id: str, init: tuple[int, int], pidfd: int, *, machine: bool) -> None:
        self.id = container_id
        self.init = init
        self.pidfd = pidfd
        self.machine = machine
        self.state = supervise.State()
        self.timer: TimerHandle | None = None


class Onlooker:
    """Publishes the ends of containers that are not supervised, and the kills for want of memory in them.

    `bound` is how many it looks at: descriptors are the supervised ones' first.

    Attributes:
        catch_up: tells of the ends up to now.
    """

    def __init__(self, loop: AbstractEventLoop, root: str, journal: Journal, oom: OomWatch, *, bound: int) -> None:
        self._loop = loop
        self._store = Store(root)
        self._journal = journal
        self._oom = oom
        self._bound = bound
        self._seen: dict[int, _Seen] = {}
        self._exits = ExitWatch(loop, self._died)
        self.catch_up = self._exits.catch_up

    def look(self) -> None:
        """Watch what runs already."""
        try:
            ids = self._store.ids()
        except FileNotFoundError:
            return
        for container_id in ids:
            try:
                self._look_at(container_id)
            except Exception as error:  # noqa: BLE001  # the boundary: a damaged record must not cost the others us
                log.debug(f"look at {container_id}: {type(error).__name__}: {error}")

    def _look_at(self, container_id: str) -> None:
        with self._store.open(container_id) as entry:
            if supervision.exists(entry):
                return
            record = entry.load()
            if observe(entry, record) not in _HAS_BEGUN:
                return
        self._watch(container_id, record, record["initPid"], open_init(record))

    def started(self, container_id: str, pid: int, pidfd: int) -> None:
        """The container's init has `pid`, and `pidfd`, the caller's, is of it.

        It may have ended, and may even have been deleted.
        """
        record = None
        try:
            with self._store.open(container_id) as entry:
                if supervision.exists(entry):
                    return
                record = entry.load()
        except (SysvisorError, OSError) as error:
            log.debug(f"{container_id} has started and gone: {error}")
        if record is not None and record["initPid"] != pid:
            record = None  # another one by now
        self._watch(container_id, record, pid, os.dup(pidfd))

    def _watch(self, container_id: str, record: Record | None, pid: int, pidfd: int) -> None:
        """Watch one more; `pidfd` is ours from here on."""
        if len(self._seen) >= self._bound:
            log.debug(f"{container_id}: too many containers to look at")
            os.close(pidfd)
            return
        start = record["initStart"] if record is not None else 0
        seen = _Seen(container_id, (pid, start), pidfd, machine=record is not None and "initKind" in record)
        self._seen[pidfd] = seen
        if record is not None:
            self._watch_memory(seen, record)
        self._exits.watch(pidfd, pid)

    def _watch_memory(self, seen: _Seen, record: Record) -> None:
        def killed() -> None:
            self._journal.publish("oom", seen.id, {})

        try:
            self._oom.watch(_key(seen), record["cgroup"]["paths"], killed)
        except (OSError, SysvisorError) as error:
            log.debug(f"watch {seen.id} for want of memory: {error}")

    def _died(self, pidfd: int, reaped: bool) -> None:
        seen = self._seen.get(pidfd)
        if seen is None:
            return
        status = self._exits.wait_status(pidfd, *seen.init)
        ended = None if status is None else outcome(self._store, seen.id, status, machine=seen.machine)
        if ended is None and reaped:
            ended = supervise.Outcome()
        if seen.state.phase == supervise.RUNNING:
            self._oom.check(_key(seen))
            self._feed(seen, supervise.Ended(time.monotonic(), ended))
        elif ended is not None:
            self._feed(seen, supervise.Told(ended))

    def _feed(self, seen: _Seen, event: supervise.Event) -> None:
        seen.state, actions = supervise.step(seen.state, event)
        for action in actions:
            match action:
                case supervise.Publish(kind, data):
                    self._journal.publish(kind, seen.id, data)
                case supervise.AwaitCode(patience):
                    told = supervise.Told(supervise.Outcome())
                    seen.timer = self._loop.call_later(patience, self._feed, seen, told)
                case supervise.Forget():
                    self._forget(seen)
                case _:
                    pass  # what is stored and started again is the supervised ones'

    def _forget(self, seen: _Seen) -> None:
        if seen.timer is not None:
            seen.timer.cancel()
        self._exits.forget(seen.pidfd)
        self._oom.forget(_key(seen))
        del self._seen[seen.pidfd]
        os.close(seen.pidfd)

    def close(self) -> None:
        """Look no more."""
        for seen in [*self._seen.values()]:
            self._forget(seen)
        self._exits.close()
        self._store.close()


def _key(seen: _Seen) -> str:
    """What the watch for kills calls it: no id has a slash, so it is no supervised container."""
    return f"{seen.id}/{seen.init[0]}"

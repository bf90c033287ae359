"""What `events` does while it runs: looks at usage at intervals, waits for out-of-memory kills and for the end, and
hears from the supervisor where there is one.

It works without a supervisor, and goes on when that comes, goes or is replaced: what a new one says begins after the
last number that was heard. Usage is looked at by ourselves in any case.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from sysvisor_runc import log
from sysvisor_runc.aio.journal import kept, last_number
from sysvisor_runc.aio.loop import asyncio, run
from sysvisor_runc.aio.oom import OomWatch
from sysvisor_runc.aio.process import ExitSource
from sysvisor_runc.errors import StateError, SysvisorError
from sysvisor_runc.jsonlight import JSONError, loads
from sysvisor_runc.launch.supervised import reached_supervisor
from sysvisor_runc.launch.tell import DIRECTORY, Dialogue, NoSupervisor
from sysvisor_runc.launch.usage import usage
from sysvisor_runc.state.process import open_init
from sysvisor_runc.state.running import all_running, find_running
from sysvisor_runc.state.supervision import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.aio.loop import AbstractEventLoop
    from sysvisor_runc.state.record import Record
    from sysvisor_runc.state.store import Store
    from sysvisor_runc.state.supervision import Supervision

    Event = dict[str, object]

_CHUNK = 1 << 16
# How long a supervisor is given for its answer, and for its word on a container that has ended.
_PATIENCE = 2.0
_LAST_WORD = 2.5
# How long one that we start may take to answer.
_BIRTH = 15.0
# How often we look for a supervisor, and for new containers with --all.
_LOOK = 1.0
# One that is there and does not answer (it is stopped, perhaps) holds us up for as long as our patience lasts.
_LEFT_ALONE = 60.0
# So many looks in a row must find nobody waiting to start it again, until a container has ended for good.
_MISSING = 5


class Wish(NamedTuple):
    """What is to be followed.

    Attributes:
        container_id: one container, or None for all of the store's.
        record: that one's; None where it has ended, and only what was kept of it is wanted.
        since: the number of the last event that the reader has seen; None to begin now.
        interval: seconds between two looks at what is used; `usage` is whether to look at all.
    """

    store: Store
    container_id: str | None
    record: Record | None
    since: int | None
    interval: float
    usage: bool


def follow(wish: Wish, show: Callable[[Event], None]) -> None:
    """Call `show` with each event until the container has ended; with all of them, for good.

    Raises:
        NoSupervisor: nobody keeps events that `since` could be about.
        OSError: what `show` raises, such as BrokenPipeError.
    """
    run(_follow(wish, show))


async def _follow(wish: Wish, show: Callable[[Event], None]) -> None:
    follower = _Follower(asyncio.get_running_loop(), wish, show)
    try:
        follower.begin()
        await follower.finished
    finally:
        follower.close()


class _Follower:
    """The sources, and what their news lead to.

    With a supervisor that numbers its events, and a reader who wants numbers (--all, --since), deaths for want of
    memory come from there; else we watch for them, and tell of them as runc does.
    """

    def __init__(self, loop: AbstractEventLoop, wish: Wish, show: Callable[[Event], None]) -> None:
        self._loop = loop
        self._wish = wish
        self._show = show
        self.finished: asyncio.Future[None] = loop.create_future()
        self._numbered = wish.container_id is None or wish.since is not None
        self._oom = OomWatch(loop)
        self._watched: set[str] = set()
        self._seq = wish.since
        self._feed: _Feed | None = None
        self._exit: ExitSource | None = None
        self._pidfd = -1
        self._ended = self._final = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._not_before = 0.0
        self._missing = 0
        self._dismissed = False

    def begin(self) -> None:
        """Start all that is wished for."""
        self._connect()
        if self._feed is None:
            self._recall()
            if self.finished.done():
                return
        if self._wish.container_id is None and self._feed is None:
            self._start_supervisor()
        if self._wish.container_id is None and self._feed is None:
            log.warning("no supervisor tells what happens: only usage and out-of-memory kills are shown")
        if self._wish.record is not None:
            self._attend(self._wish.record)
        self._every(_LOOK, self._look)
        if self._wish.usage or (self._wish.container_id is None and self._feed is None):
            self._every(self._wish.interval, self._report)

    def close(self) -> None:
        """Give every descriptor back."""
        for timer in self._timers.values():
            timer.cancel()
        self._oom.close()
        self._leave()
        if self._feed is not None:
            self._feed.close()

    def _every(self, interval: float, what: Callable[[], None]) -> None:
        """Call `what` at that interval, first when one has passed, without drifting and without catching up."""

        def turn(due: float) -> None:
            self._guarded(what)
            due = max(due + interval, self._loop.time())
            self._timers[what.__name__] = self._loop.call_at(due, turn, due)

        due = self._loop.time() + interval
        self._timers[what.__name__] = self._loop.call_at(due, turn, due)

    def _guarded(self, what: Callable[[], None]) -> None:
        """Whatever goes wrong in a callback ends the command, and is told by it."""
        try:
            what()
        except BaseException as error:  # noqa: BLE001  # the loop would only log it
            self._finish(error)

    def _finish(self, error: BaseException | None = None) -> None:
        if self.finished.done():
            return
        if error is not None:
            self.finished.set_exception(error)
        else:
            self.finished.set_result(None)

    # ---- the one container

    def _attend(self, record: Record) -> None:
        """Wait for its init's end."""
        self._ended = False
        try:
            self._pidfd = open_init(record)
        except StateError:
            self._init_ended()
            return
        self._exit = ExitSource(self._loop, self._pidfd, lambda: self._guarded(self._init_ended))
        self._watch_memory()

    def _leave(self) -> None:
        if self._exit is not None:
            self._exit.close()
            self._exit = None
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _init_ended(self) -> None:
        """The end, unless the supervisor has yet to tell of it, or starts it again."""
        self._ended = True
        self._leave()
        self._watch_memory()
        if self._final:
            self._finish()
        elif self._feed is not None:
            self._await_last_word()
        elif not self._may_come_back():
            self._finish()

    def _await_last_word(self) -> None:
        self._forget_last_word()
        self._timers["last word"] = self._loop.call_later(_LAST_WORD, self._no_last_word)

    def _forget_last_word(self) -> None:
        timer = self._timers.pop("last word", None)
        if timer is not None:
            timer.cancel()

    def _no_last_word(self) -> None:
        if self._ended:
            self._finish()

    def _heard_of_end(self, kind: object, data: object) -> None:
        """An exit whose code is yet to come, one with a restart to follow, or the last; or a restart that failed."""
        known = data if isinstance(data, dict) else {}
        if kind == "health" and "restarting" not in known:
            return
        if known.get("pending"):
            self._await_last_word()
        elif known.get("restarting"):
            self._forget_last_word()
        elif self._ended:
            self._finish()
        else:
            self._final = kind == "exit"  # it was faster than the kernel's word to ourselves

    def _started_again(self) -> None:
        self._final = False
        if not self._ended or self._wish.container_id is None:
            return
        self._forget_last_word()
        try:
            self._attend(find_running(self._wish.store, self._wish.container_id))
        except StateError:
            self._await_last_word()  # over already

    def _look_for_it(self, container_id: str) -> None:
        """Whether one that was to be started again is not any more: it was deleted, or stopped for good."""
        known = self._supervision(container_id)
        self._missing = 0 if known is not None and known["restarting"] else self._missing + 1
        if self._missing >= _MISSING:
            self._finish()

    def _may_come_back(self) -> bool:
        """Whether a supervisor that is not there just now would start the container again."""
        known = self._supervision(self._wish.container_id or "")
        return known is not None and known["restart"]["policy"] != "no"

    def _supervision(self, container_id: str) -> Supervision | None:
        try:
            with self._wish.store.open(container_id) as entry:
                return load(entry)
        except StateError:
            return None

    # ---- usage and memory

    def _watch_memory(self) -> None:
        """Watch those for whom nobody else does."""
        others = self._numbered and self._feed is not None
        records = {} if others else {record["id"]: record for record in self._running()}
        for container_id in self._watched - set(records):
            self._oom.check(container_id)
            self._oom.forget(container_id)
        added = set(records) - self._watched
        self._watched = set(records)
        for container_id in added:
            self._watch_one(container_id, records[container_id])

    def _watch_one(self, container_id: str, record: Record) -> None:
        def killed() -> None:
            self._guarded(lambda: self._show({"type": "oom", "id": container_id}))

        try:
            watching = self._oom.watch(container_id, record["cgroup"]["paths"], killed)
        except OSError as error:
            watching = False
            log.warning(f"container {container_id}: out-of-memory kills cannot be watched: {error}")
        if not watching:
            log.debug(f"container {container_id}: no memory cgroup to watch")

    def _report(self) -> None:
        """Show what is used now."""
        for record in self._running():
            try:
                data = usage(record)
            except SysvisorError as error:
                log.error(f"container {record['id']}: {error}")
                continue
            self._show({"type": "stats", "id": record["id"], "data": data})

    def _running(self) -> list[Record]:
        if self._wish.container_id is None:
            return list(all_running(self._wish.store))
        try:
            return [] if self._ended else [find_running(self._wish.store, self._wish.container_id)]
        except StateError:
            return []

    def _look(self) -> None:
        """For a supervisor that has come, and for containers that came and went."""
        if self._feed is None:
            self._connect()
        if self._feed is None and self._wish.container_id is None and not self._dismissed:
            self._start_supervisor()
        if self._ended and self._wish.container_id is not None:
            self._look_for_it(self._wish.container_id)
        self._watch_memory()

    # ---- the supervisor

    def _recall(self) -> None:
        """Without a supervisor: tell what the last one has kept, and have the next one begin behind that.

        Raises:
            NoSupervisor: there never was one that could have kept what `since` asks for.
        """
        journal = f"{self._wish.store.root}/{DIRECTORY}/events"
        if self._wish.since is not None:
            if not os.path.isdir(journal):
                hint = "`run --detach` starts one, and so does `supervisor`"
                raise NoSupervisor(f"no supervisor keeps events of {self._wish.store.root!r}", hint=hint)
            for event in kept(journal, self._wish.since, self._ids()):
                self._show(event)
        self._seq = last_number(journal)
        if self._over():
            self._finish()

    def _ids(self) -> list[str] | None:
        return None if self._wish.container_id is None else [self._wish.container_id]

    def _connect(self) -> None:
        """Subscribe, from the last number heard on."""
        if self._loop.time() < self._not_before:
            return
        follow = not self._over()
        request: dict[str, object] = {"op": "events", "since": self._seq, "ids": self._ids(), "follow": follow}
        try:
            self._feed = _Feed(self._loop, self._wish.store.root, request, self._heard, self._silent)
        except SysvisorError as error:
            if not isinstance(error, NoSupervisor):
                log.warning(str(error))
                self._not_before = self._loop.time() + _LEFT_ALONE
        else:
            self._seq = self._feed.seq if self._seq is None else self._seq

    def _start_supervisor(self) -> None:
        """Start one, without which nobody tells what happens to all containers; in a state root of our own alone."""
        root = self._wish.store.root
        self._dismissed = True
        try:
            self._wish.store.fd(create=True)
            if os.stat(root).st_uid == os.geteuid():
                with reached_supervisor(root, _BIRTH) as dialogue:
                    dialogue.ask({"op": "status"})
                self._connect()
                self._dismissed = self._feed is None
        except (SysvisorError, OSError) as error:
            log.debug(f"start a supervisor: {error}")

    def _over(self) -> bool:
        """Whether only what was kept of a container is wanted."""
        return self._wish.container_id is not None and self._wish.record is None

    def _silent(self) -> None:
        """The supervisor has ended, or has sent us away."""
        self._feed = None
        if self._over():
            self._finish()

    def _heard(self, event: Event) -> None:
        kind, seq = event.get("type"), event.get("seq")
        if kind == "end":
            if self._over():  # else that of the supervisor, not of what is wanted
                self._finish()
            return
        if isinstance(seq, int):
            self._seq = seq
        if kind == "supervisor":
            # One that was killed is started again, not one that was told to end.
            data = event.get("data")
            self._dismissed = isinstance(data, dict) and data.get("action") == "stop"
        if kind == "oom" and not self._numbered:
            return  # told by ourselves, in runc's words
        self._guarded(lambda: self._show(event))
        if self._wish.container_id is None:
            return
        if kind in ("exit", "health"):
            self._heard_of_end(kind, event.get("data"))
        elif kind == "delete" and self._ended:
            self._finish()
        elif kind in ("start", "restart"):
            self._guarded(self._started_again)


class _Feed:
    """A subscription at the supervisor: calls `heard` with each line, and `ended` when there will be no more.

    Attributes:
        seq: the number of the last event when it began.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        root: str,
        request: dict[str, object],
        heard: Callable[[Event], None],
        ended: Callable[[], None],
    ) -> None:
        """Subscribe. Raises NoSupervisor, SupervisorError."""
        self._loop = loop
        self._heard = heard
        self._ended = ended
        self._dialogue = Dialogue(root, timeout=_PATIENCE)
        try:
            seq = self._dialogue.ask(request).get("seq")
        except BaseException:
            self._dialogue.close()
            raise
        self.seq = seq if isinstance(seq, int) else 0
        self._buffer = self._dialogue.rest()
        self._fd = self._dialogue.fileno()
        loop.add_reader(self._fd, self._readable)
        loop.call_soon(self._hand_on)

    def close(self) -> None:
        """Unsubscribe."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._dialogue.close()
            self._fd = -1

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            self._ended()
            return
        self._buffer += data
        self._hand_on()

    def _hand_on(self) -> None:
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            if self._fd < 0:
                return
            try:
                event = loads(line)
            except JSONError as error:
                log.warning(f"the supervisor's word is not readable: {error}")
                continue
            if isinstance(event, dict):
                self._heard(event)

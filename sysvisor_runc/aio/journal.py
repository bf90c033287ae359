"""The journal of what happened to the containers of a state root: numbered, kept within bounds, handed to readers.

Knows nothing of the supervisor. One process writes; readers are served on the loop and can hold up neither it nor each
other: who is too slow is told how many events went by.
"""

from __future__ import annotations

import os
import time
from collections import deque

from sysvisor_runc.aio.loop import asyncio
from sysvisor_runc.jsonlight import JSONError, dumps, loads
from sysvisor_runc.state.record import rfc3339nano

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    Event = dict[str, object]

# Of each of the two files: some ten thousand events.
BOUND = 2 * 1024 * 1024
# What a reader of old events is given at a time, so that the loop turns meanwhile.
_CHUNK = 64 * 1024
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW


class Journal:
    """The events of one state root.

        DIRECTORY/          0700
            journal         the newest events, one JSON object per line
            journal.1       those before them, whole
            sequence        the number of the last event, in ASCII: also of one for which the disk had no room

    Attributes:
        seq: the number of the last event, 0 before the first.
        unwritten: how many events could not be kept, for want of room or of the directory; subscribers got them.
    """

    FILE = "journal"
    OLD = "journal.1"
    SEQUENCE = "sequence"

    def __init__(self, directory: str, *, bound: int = BOUND) -> None:
        """Open the journal in `directory`, which is made where missing, and go on where it ended.

        Raises:
            OSError: the directory cannot be made or opened.
        """
        self.unwritten = 0
        self._bound = bound
        self._live: set[Subscription] = set()
        self._open_ones: set[Subscription] = set()
        os.makedirs(directory, 0o700, exist_ok=True)
        self._dirfd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | _FLAGS)
        self._fd = self._sequence = -1
        self._size = 0
        # Counts rotations: a reader whose file was put aside knows that there is a newer one.
        self.generation = 0
        self._open()
        self.seq = max(self._numbered(), *(_last(self.reader(old)) for old in (True, False)))

    def _open(self) -> None:
        """Open the files, as far as they can be; what is missing is tried again with the next event."""
        try:
            if self._fd < 0:
                flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | _FLAGS
                self._fd = os.open(self.FILE, flags, 0o600, dir_fd=self._dirfd)
                self._size = _end_of_last_line(self._fd)
            if self._sequence < 0:
                self._sequence = os.open(self.SEQUENCE, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600, dir_fd=self._dirfd)
        except OSError:
            pass

    def _numbered(self) -> int:
        if self._sequence < 0:
            return 0
        text = os.pread(self._sequence, 32, 0).strip()
        return int(text) if text.isdigit() else 0

    def close(self) -> None:
        """End every subscription once it has been read, and close the files."""
        for subscription in list(self._open_ones):
            subscription.end()
        for fd in (self._fd, self._sequence, self._dirfd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._sequence = self._dirfd = -1

    def publish(self, kind: str, container_id: str, data: dict[str, object]) -> int:
        """Number an event, keep it, and hand it to the subscribers. Never waits, and fails for nothing on the disk."""
        self.seq += 1
        event: Event = {
            "type": kind,
            "id": container_id,
            "seq": self.seq,
            "time": rfc3339nano(time.time_ns()),
            "data": data,
        }
        if not self._keep(dumps(event).encode("utf-8", "surrogateescape") + b"\n"):
            self.unwritten += 1
        for subscription in self._live:
            subscription.offer(event)
        return self.seq

    def subscribe(
        self, since: int | None = None, ids: Collection[str] | None = None, bound: int = 1024, *, follow: bool = True
    ) -> Subscription:
        """The events from now on, or all kept ones after number `since` first; of the containers `ids` only.

        Without `follow` it ends where nothing is kept any more.
        A `since` that is yet to come is a number of another journal, lost with its disk: everything is told.
        """
        if since is not None and since > self.seq:
            since = 0
        wanted = None if ids is None else frozenset(ids)
        subscription = Subscription(self, since, wanted, bound, follow=follow)
        self._open_ones.add(subscription)
        return subscription

    # ---- for Subscription

    def enter(self, subscription: Subscription) -> None:
        """Hand new events to `subscription` from now on."""
        self._live.add(subscription)

    def leave(self, subscription: Subscription) -> None:
        self._live.discard(subscription)
        self._open_ones.discard(subscription)

    def reader(self, old: bool) -> int:
        """A descriptor to read one of the files by, from its beginning; -1 where there is none."""
        try:
            return os.open(self.OLD if old else self.FILE, os.O_RDONLY | _FLAGS, dir_fd=self._dirfd)
        except OSError:
            return -1

    # ---- the files

    def _keep(self, line: bytes) -> bool:
        """Append a line; whether there was room for it."""
        try:
            if self._fd < 0 or self._sequence < 0:
                self._open()
            if self._sequence >= 0:
                # Overwritten in place, which needs no room.
                os.pwrite(self._sequence, b"%020d\n" % self.seq, 0)
            if self._fd < 0:
                return False
            if self._size and self._size + len(line) > self._bound:
                self._rotate()
            written = os.write(self._fd, line)
            if written < len(line):
                os.ftruncate(self._fd, self._size)
                return False
            self._size += written
        except OSError:
            return False
        return True

    def _rotate(self) -> None:
        os.rename(self.FILE, self.OLD, src_dir_fd=self._dirfd, dst_dir_fd=self._dirfd)
        os.close(self._fd)
        self._fd = -1
        self._size = 0
        self.generation += 1
        self._open()
        if self._fd < 0:
            raise FileNotFoundError


class Subscription:
    """An async iterator of events; `{"type": "dropped", "count": N}` stands where N are missing.

    It reads the files until it has caught up, and gets what follows from memory.
    """

    def __init__(
        self, journal: Journal, since: int | None, ids: frozenset[str] | None, bound: int, *, follow: bool
    ) -> None:
        self._journal = journal
        self._ids = ids
        self._bound = bound
        self._queue: deque[Event] = deque()
        self._lost = 0
        self._over = False
        self._follow = follow
        self._wake = asyncio.Event()
        self._seen = journal.seq if since is None else since
        self._fds: list[int] = []
        self._rest = b""
        self._generation = journal.generation
        self._live = since is None
        if since is None:
            journal.enter(self)
        else:
            self._open_files()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        while True:
            if self._queue:
                return self._queue.popleft()
            if not self._live:
                self._replay()
                await asyncio.sleep(0)  # old events are many, and others want their turn
                continue
            if self._lost:
                count, self._lost = self._lost, 0
                return {"type": "dropped", "count": count}
            if self._over or not self._follow:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()

    def offer(self, event: Event) -> None:
        """A new event, if it is wanted and there is room; a gap lasts until the reader has read what came before."""
        if self._ids is not None and event["id"] not in self._ids:
            return
        if self._lost or len(self._queue) >= self._bound:
            self._lost += 1
            return
        self._queue.append(event)
        self._wake.set()

    def end(self) -> None:
        """No more events: iteration stops after those that are there."""
        self._over = True
        self._close_files()
        self._live = True
        self._journal.leave(self)
        self._wake.set()

    def close(self) -> None:
        """The reader has gone: forget what it has not read."""
        self.end()
        self._queue.clear()
        self._lost = 0

    # ---- old events

    def _replay(self) -> None:
        """Queue the next piece of the files, or go over to live events, without a pause in which to miss one."""
        if self._fds:
            try:
                data = os.read(self._fds[0], _CHUNK)
            except OSError:
                data = b""
            if data:
                *lines, self._rest = (self._rest + data).split(b"\n")
                for line in lines:
                    self._recall(line)
                return
            os.close(self._fds.pop(0))
            self._rest = b""
        if self._fds:
            return
        if self._generation != self._journal.generation:
            # Put aside meanwhile; a file that has come and gone since shows as a gap.
            self._open_files()
            return
        self._miss(self._journal.seq + 1)
        self._live = True
        self._journal.enter(self)

    def _open_files(self) -> None:
        self._generation = self._journal.generation
        self._fds = [fd for fd in (self._journal.reader(True), self._journal.reader(False)) if fd >= 0]

    def _recall(self, line: bytes) -> None:
        event = _event(line)
        seq = _number(event)
        if event is None or seq <= self._seen:
            return
        self._miss(seq)
        self._seen = seq
        if self._ids is None or event.get("id") in self._ids:
            self._queue.append(event)

    def _miss(self, seq: int) -> None:
        """Tell of the events before `seq` that are not there any more."""
        if seq > self._seen + 1:
            self._queue.append({"type": "dropped", "count": seq - self._seen - 1})
        self._seen = seq - 1

    def _close_files(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []


def kept(directory: str, since: int, ids: Collection[str] | None = None) -> Iterator[Event]:
    """What a journal that nobody writes just now has kept, as a subscription would tell it."""
    last = last_number(directory)
    seen = since if since <= last else 0
    for name in (Journal.OLD, Journal.FILE):
        for line in _lines(f"{directory}/{name}"):
            event = _event(line)
            seq = _number(event)
            if event is None or seq <= seen:
                continue
            if seq > seen + 1:
                yield {"type": "dropped", "count": seq - seen - 1}
            seen = seq
            if ids is None or event.get("id") in ids:
                yield event
    if last > seen:
        yield {"type": "dropped", "count": last - seen}


def last_number(directory: str) -> int:
    """The number of the last event of a journal; 0 where there is none."""
    text = b"".join(_lines(f"{directory}/{Journal.SEQUENCE}"))
    told = max((_number(_event(line)) for line in _lines(f"{directory}/{Journal.FILE}")[-2:]), default=0)
    return max(told, int(text) if text.isdigit() else 0)


def _lines(path: str) -> list[bytes]:
    try:
        fd = os.open(path, os.O_RDONLY | _FLAGS)
    except OSError:
        return []
    with open(fd, "rb") as file:
        return file.read().splitlines()


def _event(line: bytes) -> Event | None:
    """A line of the journal; None of one that is damaged."""
    try:
        event = loads(line)
    except JSONError:
        return None
    return event if isinstance(event, dict) else None


def _number(event: Event | None) -> int:
    seq = event.get("seq") if event else None
    return seq if isinstance(seq, int) else 0


def _end_of_last_line(fd: int) -> int:
    """The size of the file without a line that a crash cut short, which is cut off."""
    size = os.fstat(fd).st_size
    end = size
    while end:
        start = max(0, end - _CHUNK)
        found = os.pread(fd, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end != size:
        os.ftruncate(fd, end)
    return end


def _last(fd: int) -> int:
    """The number of the last event in a file; closes it."""
    if fd < 0:
        return 0
    try:
        tail = os.pread(fd, _CHUNK, max(0, os.fstat(fd).st_size - _CHUNK))
    finally:
        os.close(fd)
    return max((_number(_event(line)) for line in tail.split(b"\n")[-8:] if line), default=0)

"""The FUSE thread: reads the requests of all connections, answers the quick ones, gives the slow ones to workers.

A thread of its own rather than the asyncio loop, and it spins for up to 50 µs before it sleeps: waking an idle virtual
CPU costs more than the answer does (docs/performance.md). Whoever takes a job out of `Link.pending` answers it: the
worker, the deadline, or an interrupt; taking is one atomic step, so there is no lock.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from sysvisor_fs.fuse import protocol as p
from sysvisor_fs.fuse.session import Slow
from sysvisor_fs.fuse.workers import Workers
from sysvisor_runc import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_fs.fuse.journal import Journal
    from sysvisor_fs.fuse.protocol import Request
    from sysvisor_fs.fuse.session import Session, Trigger

DEADLINE = 5.0  # seconds for a slow answer
PENDING = 16  # slow requests of one container; then its next ones wait in the kernel, and nobody else's
QUESTIONS = 4  # of those, that ask a process and may wait long for it; the next ones wait without a worker
_SPIN = 50_000  # ns
_TICK = 0.25
_EVENTS = 64  # at a time; for each possible one the interpreter has memory cleared at every look
_ATTEMPTS = 3  # daemons that may die with the same request
_COSTS = 4096  # paths whose cost is remembered
_CONNECTION_GONE = frozenset((errno.ENODEV, errno.ENOTCONN, errno.ECONNABORTED, errno.EBADF))


class Job:
    """A slow request under way."""

    __slots__ = ("began", "link", "request", "slot")

    def __init__(self, link: Link, request: Request, slot: int) -> None:
        self.link = link
        self.request = request
        self.slot = slot
        self.began = time.monotonic()


class Link:
    """A connection as the engine sees it: its descriptor, its session, and the slow requests by their `unique`."""

    __slots__ = ("asking", "fd", "gone", "lock", "paused", "pending", "questions", "session", "silent")

    def __init__(self, fd: int, session: Session) -> None:
        self.fd = fd
        self.session = session
        self.pending: dict[int, Job] = {}
        self.questions: deque[Job] = deque()  # that wait for their turn, `asking` workers being about others
        self.asking = 0
        self.paused = False
        self.gone = False
        self.silent = False
        self.lock = threading.Lock()  # held by workers that write or take a question, while `gone` is set; none waits


class Cost:
    """What one path has cost: how many answers, and nanoseconds in all and at most."""

    __slots__ = ("count", "longest", "total")

    def __init__(self) -> None:
        self.count = self.total = self.longest = 0


class Engine:
    """The thread and what it serves.

    Attributes:
        links: by descriptor.
        costs: of reading and writing, by node id.
        on_gone: called on the FUSE thread with a link whose connection the kernel has ended.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.links: dict[int, Link] = {}
        self.costs: dict[int, Cost] = {}
        self.on_gone: Callable[[Link], None] = lambda _: None
        self._triggers: dict[int, tuple[Link, Trigger]] = {}
        self._jobs: deque[Job] = deque()
        self._workers = Workers()
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._calls: deque[Callable[[], None]] = deque()
        self._epoll.register(self._wake, select.EPOLLIN)
        self._slot = journal.free.pop()
        self._spin = _SPIN
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="fs-fuse", daemon=True)

    # --- from other threads -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """End after the request in hand; what is pending stays in the journal."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        if self._thread.is_alive():
            self._thread.join()

    def call(self, function: Callable[[], None]) -> None:
        """Run it on the FUSE thread, and wait for that."""
        if not self._thread.is_alive() or threading.current_thread() is self._thread:
            function()
            return
        done = threading.Event()

        def run() -> None:
            try:
                function()
            finally:
                done.set()

        self._calls.append(run)
        os.eventfd_write(self._wake, 1)
        done.wait()

    def add(self, link: Link) -> None:
        """Serve a connection."""
        self.links[link.fd] = link
        self._epoll.register(link.fd, select.EPOLLIN)

    def remove(self, link: Link) -> None:
        """Serve it no more. The descriptor is closed when its last slow request has come back."""

        def run() -> None:
            if self.links.pop(link.fd, None) is None:
                return
            self.silence(link)
            for unique in list(link.pending):
                self._give_up(link, unique, errno.ENOTCONN)
            with link.lock:
                link.gone = True
            link.session.close()
            os.close(link.fd)

        self.call(run)

    def silence(self, link: Link) -> None:
        """Look no more at a connection that the kernel has ended, until it is removed."""
        if not link.silent:
            link.silent = True
            self._epoll.unregister(link.fd)

    def watch(self, link: Link, trigger: Trigger) -> None:
        """Tell the connection's kernel when a trigger comes true."""
        self._epoll.register(trigger.fd, select.EPOLLPRI)
        self._triggers[trigger.fd] = link, trigger

    def unwatch(self, trigger: Trigger) -> None:
        """Its file is closed."""
        if self._triggers.pop(trigger.fd, None) is not None:
            self._epoll.unregister(trigger.fd)
        os.close(trigger.fd)

    # --- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            self._take(self._epoll.poll(0, _EVENTS) or self._wait())

    def _take(self, events: list[tuple[int, int]]) -> None:
        for fd, event in events:
            if (link := self.links.get(fd)) is not None:
                self._serve(link)
            elif fd == self._wake:
                self._called()
            elif (watched := self._triggers.get(fd)) is not None:
                self.fire(*watched, gone=not event & select.EPOLLPRI)
        if self._jobs:
            self._expire()

    def _wait(self) -> list[tuple[int, int]]:
        """Spin for as long as that has paid lately, then sleep."""
        poll = self._epoll.poll
        if self._spin:
            end = time.monotonic_ns() + self._spin
            while time.monotonic_ns() < end:
                if events := poll(0, _EVENTS):
                    self._spin = _SPIN
                    return events
            self._spin = self._spin // 2 if self._spin > 1000 else 0
        began = time.monotonic_ns()
        events = poll(_TICK if self._jobs else None, _EVENTS)
        if time.monotonic_ns() - began < _SPIN:
            self._spin = _SPIN
        return events

    def _called(self) -> None:
        os.eventfd_read(self._wake)
        while self._calls:
            self._calls.popleft()()

    def fire(self, link: Link, trigger: Trigger, gone: bool = False) -> None:
        """It has come true; with `gone` it will never again."""
        if gone:  # its cgroup has been removed: it will never fire, and would be reported again and again
            self._epoll.unregister(trigger.fd)
        trigger.fired = True
        if trigger.kh:
            self._write(link, p.notification(p.NOTIFY_POLL, p.NOTIFY_POLL_OUT.pack(trigger.kh)))

    def _serve(self, link: Link) -> None:
        slot = self._slot
        journal = self.journal
        journal.claim(slot, link.session.connection)
        try:
            size = os.readv(link.fd, journal.vectors[slot])
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in _CONNECTION_GONE:
                self.on_gone(link)
            return  # ENOENT: its caller has given up meanwhile
        self.handle(link, slot, size)

    def handle(self, link: Link, slot: int, size: int) -> bool:
        """Answer the request in a slot; False where it is handed to a worker, to whom the slot then belongs."""
        journal = self.journal
        try:
            request = p.parse(journal.buffers[slot][:size])
        except p.Malformed as problem:
            log.warning(f"container {link.session.container.id}: malformed request: {problem}")
            journal.clear(slot)
            return True
        if request.opcode == p.INTERRUPT:
            self._interrupt(link, request)
            journal.clear(slot)
            return True
        began = journal.busy(link.session.connection, request.unique)
        try:
            self._finish(link, request, slot, self._answer(link, request, fast=True), began)
        except Slow:
            self._defer(link, request, slot)
            return False
        finally:
            journal.idle()
        journal.clear(slot)
        return True

    def _answer(self, link: Link, request: Request, fast: bool) -> bytes | None:
        try:
            return link.session.answer(request, fast)
        except Slow:
            raise
        except Exception as problem:  # noqa: BLE001 - one file's defect must not stop the others
            name = p.OPCODE_NAMES.get(request.opcode, str(request.opcode))
            path = link.session.path_of(request.nodeid)
            log.error(f"container {link.session.container.id}: {name} {path}: {type(problem).__name__}: {problem}")
            return p.failure(request.unique, errno.EIO)

    def _finish(self, link: Link, request: Request, slot: int, answer: bytes | None, began: int) -> None:
        if answer is not None:
            if request.opcode == p.WRITE:
                self.journal.carried_out(slot)
            self._write(link, answer)
        link.session.requests += 1
        if request.opcode == p.READ or request.opcode == p.WRITE:
            cost = self.costs.get(request.nodeid)
            if cost is None:
                if len(self.costs) >= _COSTS:
                    self.costs.clear()
                cost = self.costs[request.nodeid] = Cost()
            spent = time.monotonic_ns() - began
            cost.count += 1
            cost.total += spent
            if spent > cost.longest:
                cost.longest = spent

    def _write(self, link: Link, data: bytes) -> None:
        if link.gone:
            return
        try:
            os.write(link.fd, data)
        except FileNotFoundError:
            pass  # the caller has been killed, or a predecessor had answered already
        except OSError as error:
            if error.errno == errno.EINVAL:
                log.error(f"container {link.session.container.id}: the kernel refused an answer of {len(data)} bytes")

    # --- slow requests ----------------------------------------------------------------------------------------------

    def _defer(self, link: Link, request: Request, slot: int) -> None:
        # The slot may be given to another request while a worker that has missed its deadline still looks at this one.
        caller = request.caller._replace(waits=partial(link.pending.__contains__, request.unique))
        job = Job(link, request._replace(body=memoryview(bytes(request.body)), caller=caller), slot)
        link.pending[request.unique] = job
        self._jobs.append(job)
        if slot == self._slot:
            self._slot = self._free_slot()
        if link.session.asks(request.nodeid):
            self._ask_in_turn(job)
        else:
            self._workers.submit(lambda: self._work(job))
        if len(link.pending) >= PENDING and link.fd in self.links and not link.silent:
            # In this order: a worker that ends meanwhile must not resume what is paused only after that.
            self._epoll.modify(link.fd, 0)
            link.paused = True
            self._resume(link)

    def _ask_in_turn(self, job: Job) -> None:
        """A container must not have all workers wait for processes in its namespaces."""
        link = job.link
        with link.lock:
            link.questions.append(job)
            if link.asking >= QUESTIONS:
                return
            link.asking += 1
        self._workers.submit(lambda: self._questions(link))

    def _questions(self, link: Link) -> None:
        """On a worker, until no more wait."""
        while True:
            with link.lock:
                if not link.questions:
                    link.asking -= 1
                    return
                job = link.questions.popleft()
            self._work(job)

    def _free_slot(self) -> int:
        """A slot to read into; where all are taken, the oldest slow request gives way."""
        while not self.journal.free:
            if not self._jobs:
                time.sleep(0)  # a worker is about to give one back
                continue
            job = self._jobs.popleft()
            self._give_up(job.link, job.request.unique, errno.ETIMEDOUT)
        return self.journal.free.pop()

    def _work(self, job: Job) -> None:
        """On a worker."""
        link, request = job.link, job.request
        if request.unique not in link.pending:
            return  # it waited too long for a thread
        began = time.monotonic_ns()
        answer = self._answer(link, request, fast=False)
        if link.pending.pop(request.unique, None) is job:
            with link.lock:
                self._finish(link, request, job.slot, answer, began)
            self.journal.release(job.slot)
            self._resume(link)

    def _resume(self, link: Link) -> None:
        if link.paused and len(link.pending) < PENDING and not link.gone:
            link.paused = False
            if not link.silent:
                self._epoll.modify(link.fd, select.EPOLLIN)

    def _give_up(self, link: Link, unique: int, number: int) -> None:
        """Answer a slow request with an error; its worker's answer comes to nothing."""
        if (job := link.pending.pop(unique, None)) is not None:
            self._write(link, p.failure(unique, number))
            self.journal.release(job.slot)
            self._resume(link)

    def _interrupt(self, link: Link, request: Request) -> None:
        """A signal for the caller. What is not pending has been answered: one thread reads, in order."""
        try:
            (unique,) = p.unpack(p.INTERRUPT_IN, request.body)
        except OSError:
            return
        for known in (unique, unique | p.UNIQUE_RESEND):
            self._give_up(link, known, errno.EINTR)

    def _expire(self) -> None:
        now = time.monotonic()
        while self._jobs:
            job = self._jobs[0]
            if job.link.pending.get(job.request.unique) is job:
                if now - job.began < DEADLINE:
                    return
                path = job.link.session.path_of(job.request.nodeid)
                log.warning(f"container {job.link.session.container.id}: {path}: no answer within {DEADLINE:.0f} s")
                self._give_up(job.link, job.request.unique, errno.ETIMEDOUT)
            self._jobs.popleft()

    # --- a predecessor's requests -----------------------------------------------------------------------------------

    def replay(self, by_connection: dict[int, Link]) -> int:
        """Answer what a predecessor had read and not answered; how many that were. Before the thread is started."""
        count = 0
        for slot in self.journal.outstanding():
            connection, done = self.journal.owner(slot)
            link = by_connection.get(connection)
            if link is None:
                self.journal.release(slot)
                continue
            count += 1
            if self._answered_again(link, slot, done) or self._handled_again(link, slot):
                self.journal.release(slot)
        return count

    def _handled_again(self, link: Link, slot: int) -> bool:
        """As `handle`, but with care: this request may be what its daemon has died of."""
        try:
            request = p.parse(self.journal.buffers[slot])
        except p.Malformed:
            return True
        if self.journal.attempt(slot) > _ATTEMPTS:
            path = link.session.path_of(request.nodeid)
            log.error(f"container {link.session.container.id}: {path}: given up, {_ATTEMPTS} daemons died with it")
            self._write(link, p.failure(request.unique, errno.EIO))
            return True
        if (link.session.connection, request.unique) == self.journal.suspect:
            link.session.distrust(request.nodeid)
            self._defer(link, request, slot)
            return False
        return self.handle(link, slot, len(self.journal.buffers[slot]))

    def _answered_again(self, link: Link, slot: int, done: bool) -> bool:
        """Whether it is a write that had been carried out, which is then only told so."""
        try:
            request = p.parse(self.journal.buffers[slot])
            handle, _, size, _, _, _, _ = p.unpack(p.READ_IN, request.body)
        except (p.Malformed, OSError):
            return False
        if request.opcode != p.WRITE or not (done or handle in link.session.triggers):
            return False
        self._write(link, p.reply(request.unique, p.WRITE_OUT.pack(size, 0)))
        return True

    def resend(self, link: Link) -> bool:
        """Have the kernel send again what it waits for (Linux 6.9); whether it can."""
        try:
            os.write(link.fd, p.notification(p.NOTIFY_RESEND))
        except OSError:
            return False
        return True

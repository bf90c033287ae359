"""The resident supervisor: watches containers, and performs what `supervise.step` says about their ends. No policy.

A container costs it a pidfd and a small object; what is on disk is read when it is needed. Nothing that it does is
needed for a container to live: whatever fails here is noted in the container's health and in the log.
"""

from __future__ import annotations

import errno
import os
import time

from sysvisor_runc import log, supervise
from sysvisor_runc.aio.console_keeper import ConsoleKeeper
from sysvisor_runc.aio.control import Refusal
from sysvisor_runc.aio.exits import ExitWatch
from sysvisor_runc.aio.launcher import LauncherLink
from sysvisor_runc.aio.outcome import outcome
from sysvisor_runc.errors import NoSuchContainer, StateError, SysvisorError, reason
from sysvisor_runc.state import supervision
from sysvisor_runc.state.consolelog import ConsoleLog
from sysvisor_runc.state.process import open_process
from sysvisor_runc.state.record import rfc3339nano
from sysvisor_runc.state.store import Store
from sysvisor_runc.supervise import RUNNING, WAITING, Outcome, Policy, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.aio.journal import Journal
    from sysvisor_runc.aio.loop import AbstractEventLoop, TimerHandle
    from sysvisor_runc.aio.notify import ServiceManager
    from sysvisor_runc.aio.oom import OomWatch
    from sysvisor_runc.state.record import Record
    from sysvisor_runc.state.store import Entry
    from sysvisor_runc.state.supervision import Supervision
    from sysvisor_runc.supervise import Action, Event

# What adoption and everyday work need beside the containers' own descriptors.
_SPARE_FDS = 48


class Container:
    """One container that is looked after.

    Attributes:
        init: pid and start time of its init.
        pidfd: of its init, ours; -1 once that has ended.
        machine: its init is an init system, whose last signal has a meaning.
        waiters: who waits for its end.
    """

    __slots__ = ("console", "id", "init", "machine", "pidfd", "state", "timer", "waiters")

    def __init__(self, container_id: str, init: tuple[int, int], pidfd: int, state: State, *, machine: bool) -> None:
        self.id = container_id
        self.init = init
        self.pidfd = pidfd
        self.state = state
        self.machine = machine
        self.timer: TimerHandle | None = None
        self.console: ConsoleKeeper | None = None
        self.waiters: list[Callable[[], None]] | None = None


class Supervisor:
    """Looks after the containers of one state root.

    Attributes:
        containers: those that run or are to be started again, by id.
        unwatched: id → why it cannot be looked after; tried again when something becomes free.
        catch_up: deals with the ends up to now.
        changed: called when there may be nothing left to look after.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        root: str,
        journal: Journal,
        manager: ServiceManager,
        oom: OomWatch,
        *,
        descriptors: int,
    ) -> None:
        self.root = root
        self.journal = journal
        self.containers: dict[str, Container] = {}
        self.unwatched: dict[str, str] = {}
        self.changed: Callable[[], None] = _nothing
        self._loop = loop
        self._store = Store(root)
        self._manager = manager
        self._oom = oom
        self._descriptors = descriptors
        self._by_pidfd: dict[int, Container] = {}
        self._exits = ExitWatch(loop, self._died)
        self.catch_up = self._exits.catch_up
        self.launcher = LauncherLink(
            loop, root, respawn=not manager.active, finished=self._launched, lost=self._keep_again
        )

    # ---- adoption

    def adopt_all(self, masters: dict[str, int]) -> None:
        """Look after every supervised container of the state root; `masters`: terminals kept for us, by id."""
        try:
            ids = self._store.ids()
        except FileNotFoundError:
            ids = []
        kept = [*masters]
        for container_id in ids:
            try:
                with self._store.open(container_id) as entry:
                    if not supervision.exists(entry):
                        continue
                self.adopt(container_id, -1, masters.pop(container_id, -1))
            except Exception as error:  # noqa: BLE001  # the boundary: a damaged record must not cost the others us
                log.warning(f"adopt {container_id}: {type(error).__name__}: {error}")
        for master in masters.values():
            os.close(master)
        for container_id in kept:
            container = self.containers.get(container_id)
            if container is None or container.console is None:
                self._manager.forget(f"console.{container_id}")

    def adopt(self, container_id: str, pidfd: int, master: int) -> None:
        """Look after a container. The descriptors (-1: none) are ours from here on, whatever comes of it.

        Raises:
            SysvisorError: it cannot be done.
        """
        fds = [fd for fd in (pidfd, master) if fd >= 0]
        try:
            with self._store.open(container_id) as entry:
                self._adopt(entry, entry.load(), fds, pidfd, master)
        except OSError as error:
            raise Refusal(f"adopt {container_id}: {reason(error)}") from error
        finally:
            for fd in fds:
                os.close(fd)

    def _adopt(self, entry: Entry, record: Record, fds: list[int], pidfd: int, master: int) -> None:
        known = supervision.load(entry)
        if known is None:
            raise Refusal(f"container {entry.id!r} was not started to be supervised", hint="`run --detach` does that")
        init = record["initPid"], record["initStart"]
        container = self.containers.get(entry.id)
        if container is not None and container.init == init and container.state.phase == RUNNING:
            # Only its terminal is news: somebody has kept it for us.
            self._take_console(container, entry, fds, master)
            return
        try:
            self._require_descriptors()
            if pidfd < 0:
                pidfd = _open(record)
                if pidfd >= 0:
                    fds.append(pidfd)
        except (OSError, Refusal) as error:
            self._unwatched(entry, known, error)
            raise
        self._adopted(entry, record, known, fds, pidfd)
        self._take_console(self.containers.get(entry.id), entry, fds, master)

    def _adopted(self, entry: Entry, record: Record, known: Supervision, fds: list[int], pidfd: int) -> None:
        init = record["initPid"], record["initStart"]
        container = self.containers.get(entry.id)
        fresh = container is None and known["exit"] is None and not known["restartCount"]
        if container is None:
            container = Container(entry.id, init, -1, _state_of(known), machine="initKind" in record)
            self.containers[entry.id] = container
        self.unwatched.pop(entry.id, None)
        if supervision.is_of(known["exit"], record):
            self._resume(container, entry, known)
            return
        self._unwatch(container)
        container.init = init
        self._feed(container, supervise.Started(_began(init[1])))
        if fresh:
            self.journal.publish("start", entry.id, {"pid": init[0]})
        if pidfd < 0:
            # It died while nobody looked, and has been reaped: nobody will ever know how.
            self._feed(container, supervise.Ended(time.monotonic(), Outcome(), supervision.stop_asked(entry)))
            return
        fds.remove(pidfd)
        container.pidfd = pidfd
        self._by_pidfd[pidfd] = container
        self._exits.watch(pidfd, init[0])
        self._watch_oom(entry.id, record)

    def _resume(self, container: Container, entry: Entry, known: Supervision) -> None:
        """Its end has been dealt with already, by our predecessor: go on with the start that was due, if one was."""
        stopped = supervision.stop_asked(entry)
        if known["restarting"] and not stopped:
            delay = container.state.policy.delay
            container.state = container.state._replace(phase=WAITING, delay=delay)
            self._perform(container, supervise.Arm(delay))
        else:
            self.containers.pop(entry.id, None)

    def start_stopped(self) -> None:
        """Start the containers again that are `always` to run and were asked to stop: a service begins anew."""
        for container_id in self._store.ids():
            try:
                with self._store.open(container_id) as entry:
                    known = supervision.load(entry)
                    if known is None or known["restart"]["policy"] != "always" or container_id in self.containers:
                        continue
                    record = entry.load()
                    if not supervision.is_of(known["exit"], record):
                        continue
                    supervision.forget_stop(entry)
                    init = record["initPid"], record["initStart"]
                    state = _state_of(known)._replace(phase=WAITING, delay=known["restart"]["delay"])
                    container = Container(container_id, init, -1, state, machine="initKind" in record)
                    self.containers[container_id] = container
                    self._perform(container, supervise.Arm(0.0))
            except SysvisorError as error:
                log.warning(f"start {container_id}: {error}")

    def _require_descriptors(self) -> None:
        if self._near_the_limit() and len(os.listdir("/proc/self/fd")) + _SPARE_FDS > self._descriptors:
            raise Refusal(
                f"the supervisor has no descriptor left: its limit is {self._descriptors}",
                hint="raise its limit on open files: ulimit -n, LimitNOFILE=",
            )

    def _near_the_limit(self) -> bool:
        """Whether counting pays; a container with a terminal has six descriptors at most."""
        return 8 * len(self.containers) + _SPARE_FDS > self._descriptors // 2

    def _unwatched(self, entry: Entry, known: Supervision, error: Exception) -> None:
        why = error.message if isinstance(error, SysvisorError) else str(error)
        self.unwatched[entry.id] = why
        log.error(f"container {entry.id!r} is not looked after: {why}")
        self.journal.publish("health", entry.id, {"status": "unwatched", "error": why})
        try:
            supervision.save(entry, {**known, "health": f"not looked after: {why}"})
        except OSError:
            pass  # it is in the log

    def retry_unwatched(self) -> None:
        """Something has become free."""
        for container_id in [*self.unwatched]:
            try:
                self.adopt(container_id, -1, -1)
            except SysvisorError as error:
                if isinstance(error, NoSuchContainer):
                    self.unwatched.pop(container_id, None)
                    continue
                return

    def _watch_oom(self, container_id: str, record: Record) -> None:
        try:
            self._oom.watch(
                container_id,
                record["cgroup"]["paths"],
                lambda: self._publish("oom", container_id),
            )
        except (OSError, SysvisorError) as error:
            log.debug(f"watch {container_id} for want of memory: {error}")

    def _publish(self, kind: str, container_id: str) -> None:
        self.journal.publish(kind, container_id, {})

    # ---- terminals

    def _take_console(self, container: Container | None, entry: Entry, fds: list[int], master: int) -> None:
        if master < 0 or container is None or container.console is not None:
            return
        directory = os.dup(entry.dirfd)
        fds.remove(master)
        container.console = ConsoleKeeper(self._loop, master, ConsoleLog(directory))
        self._manager.store(f"console.{entry.id}", master)
        if container.pidfd >= 0:
            self.launcher.keep(entry.id, container.pidfd, master)
        else:
            self._end_console(container)

    def _end_console(self, container: Container) -> None:
        console, container.console = container.console, None
        if console is None:
            return
        console.end()
        self.launcher.drop(container.id)
        self._manager.forget(f"console.{container.id}")

    def _keep_again(self) -> None:
        """The launcher was killed: the next one gets the terminals as well."""
        log.warning("the launcher was killed")
        for container in self.containers.values():
            if container.console is not None and container.pidfd >= 0:
                self.launcher.keep(container.id, container.pidfd, container.console.master)

    # ---- ends

    def _died(self, pidfd: int, reaped: bool) -> None:
        container = self._by_pidfd.get(pidfd)
        if container is None:
            return
        status = self._exits.wait_status(pidfd, *container.init)
        outcome = None if status is None else self._outcome(container, status)
        if container.state.phase == RUNNING:
            self._oom.check(container.id)
            self._ended(container, outcome or (Outcome() if reaped else None))
        elif outcome is not None or reaped:
            self._code_is(container, outcome or Outcome())

    def _ended(self, container: Container, outcome: Outcome | None) -> None:
        stopped = True  # of one that is gone nobody wants more
        try:
            with self._store.open(container.id) as entry:
                stopped = supervision.stop_asked(entry)
        except (SysvisorError, OSError) as error:
            log.debug(f"{container.id}: {error}")
        self._end_console(container)
        if outcome is not None:
            self._unwatch(container)
        self._feed(container, supervise.Ended(time.monotonic(), outcome, stopped))

    def _code_is(self, container: Container, outcome: Outcome) -> None:
        self._unwatch(container)
        self._cancel_timer(container)
        self._feed(container, supervise.Told(outcome))

    def _outcome(self, container: Container, status: int) -> Outcome:
        return outcome(self._store, container.id, status, machine=container.machine)

    def _unwatch(self, container: Container) -> None:
        if container.pidfd >= 0:
            self._exits.forget(container.pidfd)
            self._by_pidfd.pop(container.pidfd, None)
            os.close(container.pidfd)
            container.pidfd = -1
            self._oom.forget(container.id)

    # ---- the reducer's actions

    def _feed(self, container: Container, event: Event) -> None:
        container.state, actions = supervise.step(container.state, event)
        for action in actions:
            self._perform(container, action)

    def _perform(self, container: Container, action: Action) -> None:
        match action:
            case supervise.Note(outcome):
                self._note(container, outcome)
                if outcome is not None:
                    self._tell_waiters(container)
            case supervise.Publish(kind, data):
                self.journal.publish(kind, container.id, data)
            case supervise.Arm(delay):
                self._cancel_timer(container)
                container.timer = self._loop.call_later(delay, self._elapsed, container)
            case supervise.AwaitCode(patience):
                self._cancel_timer(container)
                container.timer = self._loop.call_later(patience, self._code_is, container, Outcome())
            case supervise.Disarm():
                self._cancel_timer(container)
            case supervise.Launch():
                self.launcher.launch(container.id, *container.init)
            case supervise.Forget():
                self._forget(container)

    def _cancel_timer(self, container: Container) -> None:
        if container.timer is not None:
            container.timer.cancel()
            container.timer = None

    def _elapsed(self, container: Container) -> None:
        container.timer = None
        stopped = self._stopped(container)
        self._feed(container, supervise.Removed() if stopped is None else supervise.Elapsed(stopped))

    def _launched(self, container_id: str, error: str | None) -> None:
        """The launcher's answer. That a container runs again it has told us itself, when it was handed over."""
        container = self.containers.get(container_id)
        if container is None or container.state.phase != supervise.STARTING or error is None:
            return
        stopped = self._stopped(container)
        if not error or stopped is None:
            self._feed(container, supervise.Elapsed(stopped=True) if stopped else supervise.Removed())
            return
        log.warning(f"start {container_id} again: {error}")
        self._feed(container, supervise.Failed(error))

    def _stopped(self, container: Container) -> bool | None:
        """Whether somebody has asked for its end; None where it is gone."""
        try:
            with self._store.open(container.id) as entry:
                return supervision.stop_asked(entry)
        except (SysvisorError, OSError):
            return None

    def _note(self, container: Container, outcome: Outcome | None) -> None:
        """Store what there is to be known; what cannot be stored is in the log and in the journal."""
        state = container.state
        try:
            with self._store.open(container.id) as entry:
                known = supervision.load(entry)
                if known is None:
                    return
                known["restartCount"] = state.times
                known["restarting"] = state.phase in (WAITING, supervise.STARTING)
                known["health"] = ""
                if outcome is not None:
                    known["exit"] = {
                        "code": outcome.code,
                        "signal": outcome.signal,
                        "oom": outcome.oom,
                        "time": rfc3339nano(time.time_ns()),
                        "initPid": container.init[0],
                        "initStart": container.init[1],
                    }
                supervision.save(entry, known)
        except NoSuchContainer:
            return
        except (StateError, OSError) as error:
            log.error(f"store what is known of {container.id}: {error}")

    def _forget(self, container: Container) -> None:
        self._cancel_timer(container)
        self._unwatch(container)
        self._end_console(container)
        if self.containers.get(container.id) is container:
            del self.containers[container.id]
        self._tell_waiters(container)
        if self.unwatched:
            self._loop.call_soon(self.retry_unwatched)
        self.changed()

    # ---- for the operations

    def wait(self, container_id: str, done: Callable[[], None]) -> bool:
        """Call `done` when the container has ended; False where it does not run."""
        container = self.containers.get(container_id)
        if container is None or container.state.phase != RUNNING:
            return False
        if container.waiters is None:
            container.waiters = []
        container.waiters.append(done)
        return True

    def _tell_waiters(self, container: Container) -> None:
        waiters, container.waiters = container.waiters or [], None
        for done in waiters:
            done()

    def known(self, container_id: str) -> Supervision | None:
        """What is stored of a container. Raises SysvisorError."""
        with self._store.open(container_id) as entry:
            return supervision.load(entry)

    def busy(self) -> bool:
        """Whether there is anything to look after."""
        return bool(self.containers or self.unwatched)

    def close(self) -> None:
        """Let go of everything: the containers run on."""
        for container in [*self.containers.values()]:
            self._cancel_timer(container)
            if container.console is not None:
                container.console.close()
            self._unwatch(container)
        self.launcher.close()
        self._exits.close()
        self._store.close()


def _open(record: Record) -> int:
    """A pidfd of the recorded init; -1 where it is gone. A zombie counts: how it ended can still be known."""
    try:
        return open_process(record["initPid"], record["initStart"], record.get("initHandle", ""))
    except ProcessLookupError:
        pass
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF):
            raise
    from sysvisor_runc.state.process import read_stat

    try:
        pidfd = os.pidfd_open(record["initPid"])
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return -1
    found = read_stat(record["initPid"])
    if found is None or found.start != record["initStart"]:
        os.close(pidfd)
        return -1
    return pidfd


def _state_of(known: Supervision) -> State:
    restart = known["restart"]
    policy = Policy(restart["policy"], restart["retries"], restart["delay"])
    return State(policy, phase=RUNNING, times=known["restartCount"])


def _began(ticks: int) -> float:
    """When a process began, on the clock of time.monotonic; at suspend the two part, and it seems younger."""
    return min(ticks / os.sysconf("SC_CLK_TCK"), time.monotonic())


def _nothing() -> None:
    pass

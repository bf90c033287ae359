"""The containers that are served: made known, mounted, kept across restarts, forgotten.

The one place that changes what is served. Called from one thread, which is never the FUSE thread: some of these calls
look up paths in mounts of ours.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from typing import TYPE_CHECKING

from sysvisor_fs import origins
from sysvisor_fs.contract import AlreadyRegistered, NotRegistered
from sysvisor_fs.fuse import mount
from sysvisor_fs.fuse.engine import Link
from sysvisor_fs.fuse.session import Session, Trigger
from sysvisor_fs.node import Container
from sysvisor_fs.store import check_id
from sysvisor_runc import log
from sysvisor_runc.errors import SysvisorError
from sysvisor_runc.kernel.syscall import SyscallError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_fs.contract import FileStatus, Ids, Status
    from sysvisor_fs.fuse.engine import Engine
    from sysvisor_fs.fuse.handles import Handles
    from sysvisor_fs.fuse.names import Names
    from sysvisor_fs.keeper import Keeper
    from sysvisor_fs.store import Record, Store

_SLOWEST = 20  # paths that the status names


class Registry:
    """What `contract.Registry` promises.

    Attributes:
        mountpoint: where, in the private mount namespace, each container has a directory with its mount.
        containers: by id.
        on_registered: called with a container whose init is known, to wait for its end.
        on_unregistered: called with one that is about to be forgotten.
        on_lost: called, on any thread, with the id of one whose connection the kernel has ended.
        revived: those that got another connection when they were adopted: their mounts are to be replaced.
    """

    def __init__(self, mountpoint: str, engine: Engine, names: Names, handles: Handles, store: Store,
                 keeper: Keeper) -> None:  # fmt: skip
        self.mountpoint = mountpoint
        self.containers: dict[str, Container] = {}
        self.on_registered: Callable[[Container], None] = lambda _: None
        self.on_unregistered: Callable[[Container], None] = lambda _: None
        self.on_lost: Callable[[str], None] = lambda _: None
        self.revived: list[str] = []
        self._engine = engine
        self._names = names
        self._handles = handles
        self._store = store
        self._keeper = keeper
        self._links: dict[str, Link] = {}
        self._starts: dict[str, int] = {}  # of init, in ticks since boot
        self._began = time.time()
        self._saving = threading.Lock()  # INIT is answered on the FUSE thread: the last to be kept shall be the newest

    # --- the life of a container --------------------------------------------------------------------------------------

    def pre_register(self, container_id: str, netns: str = "") -> None:
        """Have a tree for a container that is yet to be made.

        Raises:
            AlreadyRegistered: there is one of this id.
            NotRegistered: its network namespace cannot be looked at.
            ValueError: this can be no id.
        """
        check_id(container_id)
        if container_id in self.containers:
            raise AlreadyRegistered(container_id)
        if netns and not os.path.exists(netns):
            raise NotRegistered(netns)
        container = Container(container_id, self._store.values(container_id))
        container.netns = netns
        link = self._new_link(container)
        try:
            self._connect(container, link)
        except BaseException:
            self._discard(container_id, link)
            raise
        self.containers[container_id] = container

    def register(self, container_id: str, *, init_pid: int, uid: Ids, gid: Ids, proc_ro_paths: tuple[str, ...] = (),
                 proc_mask_paths: tuple[str, ...] = (), netns: str = "") -> None:  # fmt: skip
        """Learn who a container is; from now on its files belong to its root.

        Raises:
            AlreadyRegistered: it is known already.
            ProcessLookupError: its init has ended.
            ValueError: this can be no id, or no map.
        """
        known = self.containers.get(check_id(container_id))
        if known is not None and known.registered:
            raise AlreadyRegistered(container_id)
        if not 0 <= uid[0] <= uid[0] + uid[1] <= 1 << 32 or not 0 <= gid[0] <= gid[0] + gid[1] <= 1 << 32:
            raise ValueError("id map out of range")
        pidfd, start = origins.open_init(init_pid)
        try:
            cgroups = origins.cgroups_of(init_pid)
            if known is None:
                self.pre_register(container_id, netns)
        except BaseException:
            os.close(pidfd)
            raise
        container = self.containers[container_id]
        container.init_pid, container.init_pidfd = init_pid, pidfd
        container.uid_first, container.uid_size = uid
        container.gid_first, container.gid_size = gid
        container.proc_ro_paths, container.proc_mask_paths = proc_ro_paths, proc_mask_paths
        container.netns = netns or container.netns
        container.cgroups = cgroups
        container.ctime_ns = time.time_ns()
        container.start_boottime_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        container.registered = True
        self._starts[container_id] = start
        self._save(container)
        self.on_registered(container)

    def update(self, container_id: str, ctime_ns: int) -> None:
        """Correct when it was made.

        Raises:
            NotRegistered: it is not known.
        """
        container = self._known(container_id)
        if not 0 < ctime_ns < 1 << 63:
            raise ValueError(f"no time: {ctime_ns}")
        age = max(time.time_ns() - ctime_ns, 0)
        container.ctime_ns = ctime_ns
        container.start_boottime_ns = max(time.clock_gettime_ns(time.CLOCK_BOOTTIME) - age, 0)
        self._save(container)

    def unregister(self, container_id: str) -> None:
        """Forget it; what is left of its mounts somewhere says ENOTCONN.

        Raises:
            NotRegistered: it is not known.
        """
        container = self._known(container_id)
        self.on_unregistered(container)
        del self.containers[container_id]
        self._discard(container_id, self._links[container_id])
        if container.init_pidfd >= 0:
            os.close(container.init_pidfd)
            container.init_pidfd = -1

    def settle(self, container_id: str) -> bool:
        """Whether it is not known; one whose init has ended is forgotten now."""
        container = self.containers.get(container_id)
        if container is None:
            return True
        if not container.registered:
            return False
        try:
            if origins.start_ticks(container.init_pid) == self._starts[container_id]:
                return False
        except ProcessLookupError:
            pass
        self.unregister(container_id)
        return True

    def trees(self, container_id: str, paths: list[str]) -> list[int]:
        """Detached clones of paths below its tree, one descriptor each, the caller's to close.

        Raises:
            NotRegistered: it is not known.
            FileNotFoundError: names the first path that is not there.
            ValueError: a path that leads elsewhere.
        """
        self._known(container_id)
        made: list[int] = []
        try:
            for path in paths:
                if path.startswith("/") or not all(part not in ("", ".", "..") for part in path.split("/")):
                    raise ValueError(f"not a path below the tree: {path!r}")
                try:
                    made.append(mount.clone(f"{self._target(container_id)}/{path}"))
                except SyscallError as error:
                    raise OSError(error.errno, error.strerror, path) from None  # of the class that its errno has
        except BaseException:
            for fd in made:
                os.close(fd)
            raise
        return made

    def _known(self, container_id: str) -> Container:
        container = self.containers.get(container_id)
        if container is None:
            raise NotRegistered(container_id)
        return container

    def _target(self, container_id: str) -> str:
        return f"{self.mountpoint}/{container_id}"

    # --- its connection ---------------------------------------------------------------------------------------------

    def _new_link(self, container: Container) -> Link:
        connection = int.from_bytes(os.urandom(8), "little") >> 2 | 1
        return Link(mount.open_device(), self._session(container, connection))

    def _connect(self, container: Container, link: Link) -> None:
        """Keep, mount and serve a new connection."""
        self._keeper.put(_held(link.session.connection), link.fd)
        self._links[container.id] = link
        self._save(container)
        os.makedirs(self._target(container.id), 0o755, exist_ok=True)
        mount.mount(link.fd, self._target(container.id))
        self._engine.add(link)  # not before: a connection that is not mounted yet has no queue to wait on

    def remount(self, container_id: str) -> tuple[int, int]:
        """Have a connection that works in place of one that the kernel has ended; init's pid, and when it started.

        What the container has mounted is still to be replaced: that is for a process which can go in (`remount`).

        Raises:
            NotRegistered: it is not known, or its launch is not that far.
            OSError: the kernel refuses; the lost connection stays.
        """
        container = self._known(container_id)
        if not container.registered:
            raise NotRegistered(container_id)
        lost = self._links[container_id]
        if _is_lost(lost):
            if container_id in mount.mounted_below(self.mountpoint):
                mount.unmount(self._target(container_id))
            link = self._new_link(container)
            try:
                self._connect(container, link)
            except BaseException:
                self._links[container_id] = lost
                self._retire(link)
                raise
            self._retire(lost)
            log.info(f"container {container_id}: it has a new connection")
        return container.init_pid, self._starts[container_id]

    def _retire(self, link: Link) -> None:
        """Serve a connection no more; the holder's is the last descriptor: now the kernel ends it."""
        if link.fd in self._engine.links:
            self._engine.remove(link)
        elif not link.gone:
            os.close(link.fd)
        self._keeper.drop(_held(link.session.connection))

    def lost(self) -> list[str]:
        """Those whose files somebody should mount anew."""
        return [one.id for one in self.containers.values() if one.registered and _is_lost(self._links[one.id])]

    def _session(self, container: Container, connection: int) -> Session:
        session = Session(container, connection, self._names, self._handles)
        session.on_init = lambda _: self._save(container)
        session.on_trigger = self._watch
        session.on_release = self._unwatch
        return session

    def _watch(self, session: Session, trigger: Trigger) -> None:
        name = _held_trigger(session.connection, trigger.handle)
        try:
            self._keeper.put(name, trigger.fd)
        except SysvisorError as problem:
            log.warning(f"container {session.container.id}: {problem.message}")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        try:
            self._engine.watch(self._links[session.container.id], trigger)
        except OSError:
            self._keeper.drop(name)
            raise

    def _unwatch(self, session: Session, trigger: Trigger) -> None:
        self._keeper.drop(_held_trigger(session.connection, trigger.handle))
        self._engine.unwatch(trigger)

    def _discard(self, container_id: str, link: Link) -> None:
        """Take everything of a container away, as far as it is there."""
        # Served no more before it is unmounted: the end of a connection that is served would be an accident.
        self._retire(link)
        if container_id in mount.mounted_below(self.mountpoint):
            mount.unmount(self._target(container_id))
        try:
            os.rmdir(self._target(container_id))
        except FileNotFoundError:
            pass
        self._store.remove(container_id)
        self._links.pop(container_id, None)
        self._starts.pop(container_id, None)

    # --- across a restart -------------------------------------------------------------------------------------------

    def _save(self, container: Container) -> None:
        with self._saving:
            self._store.save(container.id, self._record(container))

    def _record(self, container: Container) -> Record:
        session = self._links[container.id].session
        return {
            "connection": session.connection, "minor": session.minor, "flags": session.flags,
            "registered": container.registered, "pid": container.init_pid, "start": self._starts.get(container.id, 0),
            "uid": [container.uid_first, container.uid_size], "gid": [container.gid_first, container.gid_size],
            "ctime": container.ctime_ns, "boottime": container.start_boottime_ns, "netns": container.netns,
            "readonly": list(container.proc_ro_paths), "masked": list(container.proc_mask_paths),
            "cgroups": container.cgroups,
        }  # fmt: skip

    def adopt(self, kept: dict[str, int]) -> dict[int, Link]:
        """Go on with what a predecessor served; `kept` is the holder's. The links, by the number of their connection.

        Whoever's init has ended meanwhile is still served, until `settle` or the watch over its pidfd.
        """
        mounted = mount.mounted_below(self.mountpoint)
        links: dict[int, Link] = {}
        for container_id in self._store.ids():
            try:
                link = self._adopt_one(container_id, kept, mounted)
            except (KeyError, TypeError, ValueError) as error:
                log.warning(f"container {container_id}: its record cannot be used: {error}")
                continue
            if link is not None:
                links[link.session.connection] = link
        for name, fd in kept.items():  # what belongs to nobody: a predecessor was killed between two steps
            os.close(fd)
            self._keeper.drop(name)
        return links

    def _adopt_one(self, container_id: str, kept: dict[str, int], mounted: set[str]) -> Link | None:
        record = self._store.load(container_id)
        connection = _number(record.get("connection"))
        fd = kept.pop(_held(connection), -1) if connection else -1
        container = _from_record(container_id, record, self._store)
        if fd < 0 or container_id not in mounted:
            if fd >= 0:
                os.close(fd)
            return self._revive(container, record)
        session = self._session(container, connection)
        session.minor, session.flags = _number(record["minor"]), _number(record["flags"])
        link = self._links[container_id] = Link(fd, session)
        self.containers[container_id] = container
        self._starts[container_id] = _number(record["start"])
        self._engine.add(link)
        self._adopt_triggers(link, kept)
        return link

    def _revive(self, container: Container, record: Record) -> Link | None:
        """Its connection is lost, with the holder perhaps: it gets a new one if it lives, and is else forgotten."""
        try:
            start = _number(record.get("start"))
            os.close(origins.open_init(container.init_pid if container.registered else 0, start)[0])
        except (ProcessLookupError, TypeError):
            log.warning(f"container {container.id}: it is over, or its launch was not finished: forgetting it")
            self._store.remove(container.id)
            return None
        log.warning(f"container {container.id}: its connection is lost, making a new one")
        link = self._new_link(container)
        self._connect(container, link)
        self.containers[container.id] = container
        self._starts[container.id] = start
        self.revived.append(container.id)
        return link

    def _adopt_triggers(self, link: Link, kept: dict[str, int]) -> None:
        """Whoever polls is woken once more than needed: whether its trigger has fired meanwhile cannot be known."""
        session = link.session
        prefix = _held_trigger(session.connection, 0)[:-1]
        for name in [name for name in kept if name.startswith(prefix)]:
            trigger = Trigger(kept.pop(name), int(name.removeprefix(prefix)))
            row = self._handles.get(session.connection, trigger.handle)
            trigger.kh = row.kh if row is not None else 0
            session.triggers[trigger.handle] = trigger
            self._engine.watch(link, trigger)
            self._engine.fire(link, trigger)

    def watch_inits(self) -> None:
        """Find the inits of those that were adopted, and have their end waited for; who has ended is forgotten."""
        for container in list(self.containers.values()):
            if not container.registered:
                continue
            try:
                container.init_pidfd, _ = origins.open_init(container.init_pid, self._starts[container.id])
            except ProcessLookupError:
                self.unregister(container.id)
                continue
            self.on_registered(container)

    # --- what people ask --------------------------------------------------------------------------------------------

    def served(self) -> list[str]:
        """The ids of those that are registered."""
        return [one.id for one in self.containers.values() if one.registered]

    def init_of(self, container_id: str) -> int:
        """The pid of its init; 0 where it is not registered."""
        container = self.containers.get(container_id)
        return container.init_pid if container is not None and container.registered else 0

    def status(self) -> Status:
        """The daemon at this moment."""
        sessions = [(container, self._links[container.id].session) for container in self.containers.values()]
        return {
            "pid": os.getpid(),
            "started": self._began,
            "requests": sum(session.requests for _, session in sessions),
            "containers": [
                {"id": container.id, "initPid": container.init_pid, "requests": session.requests}
                for container, session in sessions
            ],
            "files": self._files(),
        }

    def _files(self) -> list[FileStatus]:
        table = self._names.table
        costs = [(table[node].path, cost) for node, cost in self._engine.costs.copy().items() if node in table]
        costs.sort(key=lambda item: item[1].total, reverse=True)
        return [
            {"path": f"/{path}", "requests": c.count, "seconds": c.total / 1e9, "slowest": c.longest / 1e9}
            for path, c in costs[:_SLOWEST]
        ]


def _is_lost(link: Link) -> bool:
    """Whether the kernel has ended the connection."""
    poll = select.poll()
    poll.register(link.fd, 0)
    return link.gone or link.silent or bool(poll.poll(0))


def _held(connection: int) -> str:
    return f"connection/{connection}"


def _held_trigger(connection: int, handle: int) -> str:
    return f"trigger/{connection}/{handle}"


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{value!r} is no number")
    return value


def _numbers(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise TypeError(f"{value!r} is no map")
    return _number(value[0]), _number(value[1])


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def _from_record(container_id: str, record: Record, store: Store) -> Container:
    container = Container(container_id, store.values(container_id))
    if not record:
        return container
    container.registered = bool(record["registered"])
    container.init_pid = _number(record["pid"])
    container.uid_first, container.uid_size = _numbers(record["uid"])
    container.gid_first, container.gid_size = _numbers(record["gid"])
    container.ctime_ns, container.start_boottime_ns = _number(record["ctime"]), _number(record["boottime"])
    container.netns = str(record["netns"])
    container.proc_ro_paths, container.proc_mask_paths = _texts(record["readonly"]), _texts(record["masked"])
    cgroups = record["cgroups"]
    container.cgroups = {str(k): str(v) for k, v in cgroups.items()} if isinstance(cgroups, dict) else {}
    return container

"""What a served file, directory or link is, and the container that it is asked about.

The contract between the FUSE side, which knows requests and connections, and `nodes/`, which know content. No FUSE and
no asyncio in here. A node holds no state of a container: one tree serves all of them.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping


def _always() -> bool:
    return True


class Caller(NamedTuple):
    """Who asks, from the request's header: ids in the daemon's user namespace, pid 0 where it is not visible here.

    Attributes:
        waits: whether it does, still. One that a signal or the deadline has let go may end, and its pid be another's.
    """

    uid: int
    gid: int
    pid: int
    waits: Callable[[], bool] = _always


class Attributes(NamedTuple):
    """What stat(2) tells. `mode` has the file type; a `size` below 4096 of a file is reported as 4096."""

    mode: int
    size: int
    uid: int
    gid: int
    nlink: int = 1


class Container:
    """A container as the daemon knows it; before its registration only `id` and `netns` are set.

    Attributes:
        init_pid: its init in the daemon's pid namespace, 0 before registration.
        init_pidfd: the same by descriptor, -1 before.
        uid_first, uid_size, gid_first, gid_size: host ids that its user namespace maps, the first one is its root's.
        ctime_ns: when it was made, in nanoseconds since the epoch.
        start_boottime_ns: the same on the boot clock, which a wall clock set anew does not move.
        proc_ro_paths, proc_mask_paths: what the runtime made read-only and masked.
        netns: the network namespace's file of a container that shares another's, else empty.
        cgroups: absolute path of the cgroup that holds the limits, by v1 controller, and "unified" for v2.
        values: what the container has stored, persisted at every change.
    """

    __slots__ = (
        "cgroups", "ctime_ns", "gid_first", "gid_size", "id", "init_pid", "init_pidfd", "netns", "proc_mask_paths",
        "proc_ro_paths", "registered", "start_boottime_ns", "uid_first", "uid_size", "values",
    )  # fmt: skip

    def __init__(self, container_id: str, values: MutableMapping[str, bytes] | None = None) -> None:
        self.id = container_id
        self.registered = False
        self.init_pid = 0
        self.init_pidfd = -1
        self.uid_first = self.gid_first = 0
        self.uid_size = self.gid_size = 0
        self.ctime_ns = 0
        self.start_boottime_ns = 0
        self.proc_ro_paths: tuple[str, ...] = ()
        self.proc_mask_paths: tuple[str, ...] = ()
        self.netns = ""
        self.cgroups: dict[str, str] = {}
        self.values: MutableMapping[str, bytes] = {} if values is None else values

    @property
    def root_uid(self) -> int:
        """The host's uid of its root: 0 would show as nobody inside."""
        return self.uid_first

    @property
    def root_gid(self) -> int:
        """The host's gid of its root group."""
        return self.gid_first


class Node:
    """Anything that has a path. Errors are OSErrors with the errno that the caller shall see.

    Attributes:
        fast: answered on the FUSE thread itself, so never more than a millisecond; else on a worker with a deadline.
        asks: a process is asked for its content, so few may do so for one container at a time.
        valid: seconds for which the kernel may keep the attributes. 0 where owner or mode can change.
    """

    fast: bool = True
    asks: bool = False
    valid: float = 0.0

    def attributes(self, container: Container, caller: Caller) -> Attributes:
        """Its stat(2) values."""
        raise NotImplementedError


class File(Node):
    """A regular file without a size of its own, as procfs has them."""

    mode: int = 0o444
    slow_write: bool = False  # reading may be `fast`, writing is left to a worker

    def opened(self, container: Container, caller: Caller, write: bool) -> None:
        """Judge an open for writing beyond its mode, as procfs does. Raises OSError (EACCES)."""

    def attributes(self, container: Container, caller: Caller) -> Attributes:
        """`mode`, owned by the container's root."""
        return Attributes(stat.S_IFREG | self.mode, 4096, container.root_uid, container.root_gid)

    def read(self, container: Container, caller: Caller) -> bytes:
        """The whole content; asked for once per open, and again when a reader goes back to the beginning."""
        raise NotImplementedError

    def write(self, container: Container, caller: Caller, data: bytes) -> None:
        """Take one value: what a single write(2) at offset 0 brought."""
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def trigger(self, container: Container, caller: Caller, data: bytes) -> int:
        """For files that are polled: a descriptor, the receiver's to close, with EPOLLPRI when `data` has come true.

        Asked instead of `write` where `pollable`.
        """
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    pollable: bool = False


class Directory(Node):
    """A directory. `names` need not be cheap, `lookup` should."""

    mode: int = 0o555
    slow_names: bool = False  # `lookup` may be `fast`, listing is left to a worker

    def attributes(self, container: Container, caller: Caller) -> Attributes:
        """`mode`, owned by the container's root."""
        return Attributes(stat.S_IFDIR | self.mode, 0, container.root_uid, container.root_gid, 2)

    def names(self, container: Container, caller: Caller) -> list[tuple[str, int]]:
        """Its entries without dots, each with its d_type (DT_REG 8, DT_DIR 4, DT_LNK 10)."""
        raise NotImplementedError

    def lookup(self, container: Container, caller: Caller, name: str) -> Node:
        """The entry `name`.

        Raises:
            FileNotFoundError: there is none.
        """
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


class Link(Node):
    """A symbolic link."""

    def attributes(self, container: Container, caller: Caller) -> Attributes:
        """As every link: all may follow it."""
        return Attributes(stat.S_IFLNK | 0o777, 0, container.root_uid, container.root_gid)

    def target(self, container: Container, caller: Caller) -> bytes:
        """Where it leads."""
        raise NotImplementedError


DT_DIR, DT_REG, DT_LNK = 4, 8, 10


FOREVER = 3600.0  # seconds: owner and mode are settled when a container is registered


class Branch(Directory):
    """A directory with fixed entries, the same for every container."""

    valid = FOREVER

    def __init__(self, entries: dict[str, Node]) -> None:
        self.entries = entries

    def names(self, container: Container, caller: Caller) -> list[tuple[str, int]]:
        """In the order they were given."""
        return [(name, d_type(node)) for name, node in self.entries.items()]

    def lookup(self, container: Container, caller: Caller, name: str) -> Node:
        """The fixed entry."""
        node = self.entries.get(name)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return node


def d_type(node: Node) -> int:
    """The d_type of a node's kind."""
    return DT_DIR if isinstance(node, Directory) else DT_LNK if isinstance(node, Link) else DT_REG

"""One connection: what is answered to each request of one container's kernel side.

Pure of descriptors: a request goes in, the bytes of its answer come out. The same method runs on the FUSE thread and on
a worker; on the FUSE thread it raises `Slow` as soon as it meets a node that may wait.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from sysvisor_fs.fuse import protocol as p
from sysvisor_fs.fuse.lists import Lists
from sysvisor_fs.fuse.names import node_id
from sysvisor_fs.node import Caller, Directory, File, Link

if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_fs.fuse.handles import Handles
    from sysvisor_fs.fuse.names import Name, Names
    from sysvisor_fs.fuse.protocol import Request
    from sysvisor_fs.node import Container, Node

TRIGGERS = 64  # each keeps descriptors of the daemon's and the holder's, whose number is limited for all together
NODES = 1 << 16  # paths that one container's kernel may hold on to
# What the kernel says of a pressure file (psi_trigger_poll): readable and writable always, POLLPRI when the trigger has
# fired, POLLPRI and POLLERR without a trigger.
_POLL_READY, _POLL_FIRED, _POLL_NO_TRIGGER = 0x145, 0x147, 0x14F
_SEEK_SET, _SEEK_CUR, _SEEK_END, _SEEK_DATA, _SEEK_HOLE = range(5)


class Slow(Exception):
    """This needs a worker: a node that it meets may wait."""


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class Trigger:
    """A condition that a poller waits for: a descriptor, and whether it has come true since last told."""

    __slots__ = ("fd", "fired", "handle", "kh")

    def __init__(self, fd: int, handle: int) -> None:
        self.fd = fd
        self.handle = handle
        self.fired = False
        self.kh = 0


class Session:
    """What is served to one container.

    Attributes:
        container: whom.
        connection: the number of its connection, which the journal and the handles know it by.
        flags, minor: what INIT agreed upon; 0 before.
        requests: how many have been answered, for people who ask.
        on_init: called when INIT has been answered, to keep what it agreed upon.
        on_trigger: called with a new trigger, to wait for it.
        on_release: called with one whose file is closed, to close it.
    """

    def __init__(self, container: Container, connection: int, names: Names, handles: Handles) -> None:
        self.container = container
        self.connection = connection
        self.names = names
        self.handles = handles
        self.flags = self.minor = 0
        self.requests = 0
        self.on_init: Callable[[Session], None] = lambda _: None
        self.on_trigger: Callable[[Session, Trigger], None] = lambda _session, _trigger: None
        self.on_release: Callable[[Session, Trigger], None] = lambda _session, trigger: os.close(trigger.fd)
        self.triggers: dict[int, Trigger] = {}
        self._known: dict[int, int] = {}  # node id → lookups that the kernel has not forgotten
        self._lists = Lists()

    def path_of(self, number: int) -> str:
        """The path of a node, for people."""
        name = self.names.table.get(number)
        return f"/{name.path}" if name is not None else f"node {number}"

    def asks(self, number: int) -> bool:
        """Whether a process is asked for what is at a node."""
        name = self.names.table.get(number)
        return name is not None and name.node is not None and name.node.asks

    def distrust(self, number: int) -> None:
        """A daemon died while it answered for this node: it goes to a worker from now on."""
        name = self.names.table.get(number)
        if name is None:
            return
        try:
            node = name.node or self._found_again(name, Caller(0, 0, 0), fast=False)
        except OSError:
            return
        node.fast = False

    def answer(self, request: Request, fast: bool) -> bytes | None:
        """The answer's bytes; None where there is to be none.

        Raises:
            Slow: `fast`, and it might wait.
        """
        operation = _OPERATIONS.get(request.opcode)
        if operation is None:
            return p.failure(request.unique, errno.ENOSYS)
        try:
            payload = operation(self, request, fast)
        except OSError as error:
            return p.failure(request.unique, error.errno or errno.EIO)
        except RecursionError:
            return p.failure(request.unique, errno.EIO)
        return None if payload is None else p.reply(request.unique, payload)

    # --- nodes ------------------------------------------------------------------------------------------------------

    def _node(self, number: int, caller: Caller, fast: bool) -> Node:
        """The node of an id.

        Raises:
            OSError: ESTALE: neither we nor a predecessor gave it out, or it is gone.
        """
        name = self.names.table.get(number)
        if name is None:
            raise _error(errno.ESTALE)
        node = name.node if name.node is not None else self._found_again(name, caller, fast)
        if fast and not node.fast:
            raise Slow
        return node

    def _found_again(self, name: Name, caller: Caller, fast: bool) -> Node:
        """Walk to a path that a predecessor gave out."""
        node = self.names.table[p.ROOT_ID].node
        for part in name.path.split("/"):
            if not isinstance(node, Directory):
                raise _error(errno.ESTALE)
            if fast and not node.fast:
                raise Slow
            try:
                node = node.lookup(self.container, caller, part)
            except FileNotFoundError:
                raise _error(errno.ESTALE)
        if node is None:
            raise _error(errno.ESTALE)
        name.node = node
        return node

    def _file(self, request: Request, fast: bool) -> File:
        node = self._node(request.nodeid, request.caller, fast)
        if isinstance(node, File):
            return node
        raise _error(errno.EISDIR if isinstance(node, Directory) else errno.EINVAL)

    def _directory(self, request: Request, fast: bool) -> Directory:
        node = self._node(request.nodeid, request.caller, fast)
        if isinstance(node, Directory):
            return node
        raise _error(errno.ENOTDIR)

    def _tell(self, path: str, node: Node) -> int:
        """The id of what the kernel is about to be told of, once or once more."""
        with self.names.lock:
            known = self._known.get(node_id(path), 0)
            if not known and len(self._known) >= NODES:
                raise _error(errno.ENOMEM)  # before the table, which all share, has one more
            number = self.names.enter(path, node)
            self._known[number] = known + 1
            if not known:
                self.names.table[number].users += 1
        return number

    def _forget(self, number: int, lookups: int) -> None:
        with self.names.lock:
            known = self._known.get(number)
            if known is None:
                return  # a predecessor told of it
            if known > lookups:
                self._known[number] = known - lookups
                return
            del self._known[number]
            self.names.leave(number)

    def close(self) -> None:
        """The connection is over."""
        for number in list(self._known):
            self._forget(number, 1 << 62)
        for trigger in self.triggers.values():
            self.on_release(self, trigger)
        self.triggers.clear()
        self.handles.forget(self.connection)

    # --- operations -------------------------------------------------------------------------------------------------

    def _init(self, request: Request, fast: bool) -> bytes:
        payload, self.minor, self.flags = p.init_reply(request.body)
        self.on_init(self)
        return payload

    def _lookup(self, request: Request, fast: bool) -> bytes:
        parent = self._directory(request, fast)
        name = p.name_of(request.body)
        node = parent.lookup(self.container, request.caller, name)
        if fast and not node.fast:
            raise Slow
        value = node.attributes(self.container, request.caller)
        before = self._path(request.nodeid)
        number = self._tell(f"{before}/{name}" if before else name, node)
        return p.entry_reply(number, value, self._valid(node))

    def _path(self, number: int) -> str:
        name = self.names.table.get(number)
        if name is None:
            raise _error(errno.ESTALE)
        return name.path

    def _valid(self, node: Node) -> float:
        return node.valid if self.container.registered else 0.0  # its owner is not known before

    def _forget_one(self, request: Request, fast: bool) -> None:
        (lookups,) = p.unpack(p.FORGET_IN, request.body)
        self._forget(request.nodeid, lookups)

    def _forget_many(self, request: Request, fast: bool) -> None:
        count, _ = p.unpack(p.BATCH_FORGET_IN, request.body)
        rest = request.body[p.BATCH_FORGET_IN.size :]
        for at in range(min(count, len(rest) // p.FORGET_ONE.size)):
            self._forget(*p.FORGET_ONE.unpack_from(rest, at * p.FORGET_ONE.size))

    def _getattr(self, request: Request, fast: bool) -> bytes:
        node = self._node(request.nodeid, request.caller, fast)
        return p.attr_reply(request.nodeid, node.attributes(self.container, request.caller), self._valid(node))

    def _setattr(self, request: Request, fast: bool) -> bytes:
        """Only a truncation, which a shell's `>` makes of a file that has no length anyway."""
        valid, _, _, _, _ = p.unpack(p.SETATTR_IN, request.body)
        if valid & ~(p.FATTR_SIZE | p.FATTR_FH | p.FATTR_LOCKOWNER):
            raise _error(errno.EPERM)
        return self._getattr(request, fast)

    def _readlink(self, request: Request, fast: bool) -> bytes:
        node = self._node(request.nodeid, request.caller, fast)
        if not isinstance(node, Link):
            raise _error(errno.EINVAL)
        return node.target(self.container, request.caller)

    def _open(self, request: Request, fast: bool) -> bytes:
        # Who may read or write has been decided by the kernel (default_permissions), from attributes that are ours.
        if (name := self.names.table.get(request.nodeid)) is None:
            raise _error(errno.ESTALE)
        if isinstance(name.node, Directory):
            raise _error(errno.EISDIR)
        flags, _ = p.unpack(p.OPEN_IN, request.body)
        if flags & os.O_ACCMODE != os.O_RDONLY:
            # … and more than a mode can say, by the node: a node that is not `fast` may wait.
            self._file(request, fast).opened(self.container, request.caller, True)
        return p.OPEN_OUT.pack(self.handles.open(self.connection, request.nodeid), p.FOPEN_DIRECT_IO, 0)

    def _read(self, request: Request, fast: bool) -> bytes:
        handle, offset, size, _, _, _, _ = p.unpack(p.READ_IN, request.body)
        file = self._file(request, fast)
        if offset == 0:
            content = file.read(self.container, request.caller)
            self.handles.set_length(handle, len(content))
            if len(content) > size and handle:
                self.handles.hold(self.connection, handle, content)
            return content[:size]
        row = self.handles.get(self.connection, handle)
        if row is not None and offset >= row.length > 0:
            self.handles.drop(self.connection, handle)
            return b""
        content = self.handles.held(self.connection, handle) or b""
        if not content:
            content = file.read(self.container, request.caller)
            if row is not None and row.length:
                content = content[: row.length]
        return content[offset : offset + size]

    def _write(self, request: Request, fast: bool) -> bytes:
        handle, offset, size, _, _, flags, _ = p.unpack(p.READ_IN, request.body)
        data = bytes(request.body[p.READ_IN.size :])
        if len(data) < size:
            raise _error(errno.EINVAL)
        file = self._file(request, fast)
        if fast and file.slow_write:
            raise Slow
        if file.pollable:
            self._set_trigger(file, request.caller, handle, data[:size])
        elif offset == 0 or flags & os.O_APPEND:
            # As procfs: a value is written from the beginning, which is the end too, and what comes behind is ignored.
            file.write(self.container, request.caller, data[:size])
        return p.WRITE_OUT.pack(size, 0)

    def _set_trigger(self, file: File, caller: Caller, handle: int, data: bytes) -> None:
        if handle in self.triggers:
            raise _error(errno.EBUSY)
        if not handle or len(self.triggers) >= TRIGGERS:
            raise _error(errno.ENOSPC)
        self.triggers[handle] = trigger = Trigger(file.trigger(self.container, caller, data), handle)
        try:
            self.on_trigger(self, trigger)
        except BaseException:
            del self.triggers[handle]
            os.close(trigger.fd)
            raise

    def _release(self, request: Request, fast: bool) -> bytes:
        handle, _, _, _ = p.unpack(p.RELEASE_IN, request.body)
        self.handles.close(self.connection, handle)
        if (trigger := self.triggers.pop(handle, None)) is not None:
            self.on_release(self, trigger)
        return b""

    def _opendir(self, request: Request, fast: bool) -> bytes:
        self._directory(request, fast=False)
        return p.OPEN_OUT.pack(self.handles.open(self.connection, request.nodeid), 0, 0)

    def _readdir(self, request: Request, fast: bool) -> bytes:
        handle, offset, size, _, _, _, _ = p.unpack(p.READ_IN, request.body)
        names = self._lists.get(handle) if offset else None
        if names is None:
            directory = self._directory(request, fast)
            if fast and directory.slow_names:
                raise Slow
            names = [(".", 4), ("..", 4), *directory.names(self.container, request.caller)]
            if handle:
                self._lists.keep(handle, names)
        return p.dirents(names, offset, size)

    def _releasedir(self, request: Request, fast: bool) -> bytes:
        handle, _, _, _ = p.unpack(p.RELEASE_IN, request.body)
        self._lists.drop(handle)
        self.handles.close(self.connection, handle)
        return b""

    def _statfs(self, request: Request, fast: bool) -> bytes:
        return p.STATFS_OUT.pack(0, 0, 0, 0, 0, 4096, 255, 4096, 0)

    def _poll(self, request: Request, fast: bool) -> bytes:
        handle, kh, flags, _ = p.unpack(p.POLL_IN, request.body)
        trigger = self.triggers.get(handle)
        if trigger is None:
            pollable = self._file(request, fast=False).pollable
            return p.POLL_OUT.pack(_POLL_NO_TRIGGER if pollable else _POLL_READY, 0)
        if flags & p.POLL_SCHEDULE_NOTIFY:
            trigger.kh = kh
            self.handles.set_poller(handle, kh)
        fired, trigger.fired = trigger.fired, False
        return p.POLL_OUT.pack(_POLL_FIRED if fired else _POLL_READY, 0)

    def _lseek(self, request: Request, fast: bool) -> bytes:
        """SEEK_DATA and SEEK_HOLE are all that the kernel asks: all of it is data, with a hole at the end."""
        _, offset, whence, _ = p.unpack(p.LSEEK_IN, request.body)
        node = self._node(request.nodeid, request.caller, fast)
        size = max(node.attributes(self.container, request.caller).size, p.FILE_SIZE)
        if whence in (_SEEK_DATA, _SEEK_HOLE):
            if offset >= size:
                raise _error(errno.ENXIO)
            return p.LSEEK_OUT.pack(offset if whence == _SEEK_DATA else size)
        if whence not in (_SEEK_SET, _SEEK_END):
            raise _error(errno.EINVAL)
        return p.LSEEK_OUT.pack(offset if whence == _SEEK_SET else size + offset)

    def _access(self, request: Request, fast: bool) -> bytes:
        raise _error(errno.ENOSYS)  # the kernel then decides alone, and for good: default_permissions is on

    def _refuse(self, request: Request, fast: bool) -> bytes:
        raise _error(errno.EPERM)  # nothing is made, removed or renamed here

    def _nothing(self, request: Request, fast: bool) -> bytes:
        return b""

    def _no_xattr(self, request: Request, fast: bool) -> bytes:
        raise _error(errno.ENOSYS)  # the kernel says EOPNOTSUPP from now on, as procfs does


_OPERATIONS: dict[int, Callable[[Session, Request, bool], bytes | None]] = {
    p.INIT: Session._init,
    p.LOOKUP: Session._lookup,
    p.FORGET: Session._forget_one,
    p.BATCH_FORGET: Session._forget_many,
    p.GETATTR: Session._getattr,
    p.SETATTR: Session._setattr,
    p.READLINK: Session._readlink,
    p.OPEN: Session._open,
    p.READ: Session._read,
    p.WRITE: Session._write,
    p.RELEASE: Session._release,
    p.OPENDIR: Session._opendir,
    p.READDIR: Session._readdir,
    p.RELEASEDIR: Session._releasedir,
    p.STATFS: Session._statfs,
    p.POLL: Session._poll,
    p.LSEEK: Session._lseek,
    p.ACCESS: Session._access,
    p.DESTROY: Session._nothing,
    p.GETXATTR: Session._no_xattr,
    p.LISTXATTR: Session._no_xattr,
    p.SETXATTR: Session._no_xattr,
    p.REMOVEXATTR: Session._no_xattr,
    **dict.fromkeys(
        (p.SYMLINK, p.MKNOD, p.MKDIR, p.UNLINK, p.RMDIR, p.RENAME, p.LINK, p.RENAME2, p.CREATE), Session._refuse
    ),
}

"""/proc/sys: a directory tree as the caller's namespaces have it, and the files of each kind of sysctl_table.

Nothing that is written here reaches anything outside the container: a file is either the container's own store, or the
kernel's in a namespace that its caller may change, or not written at all. Who may is judged by the kernel's own rules
on the caller's credentials, for the daemon would be allowed everything.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from sysvisor_fs.identifier import uuid_from
from sysvisor_fs.node import DT_DIR, DT_REG, FOREVER, Attributes, Directory, File
from sysvisor_fs.nodes import sysctl_table as table
from sysvisor_fs.nodes.sysctl_values import invalid, numbers
from sysvisor_fs.passthrough import deputy, enter, identity, instances, reach
from sysvisor_fs.passthrough.identity import error

if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_fs.node import Caller, Container, Node

_PREFIX = "sys"
_WRITABLE = 0o222
_PING_RANGE = "net/ipv4/ping_group_range"


def _real(path: str) -> str:
    """Where it is below a procfs."""
    return f"{_PREFIX}/{path}" if path else _PREFIX


def _host_attributes(path: str) -> Attributes:
    return reach.attributes(instances.procfs(), _real(path))


def _in_container(found: Attributes, container: Container) -> Attributes:
    """The same, owned by the container's root."""
    return found._replace(uid=container.root_uid, gid=container.root_gid)


class Plain(File):
    """The host's, for all alike, which only the host's root may write."""

    valid = FOREVER

    def __init__(self, path: str) -> None:
        self.path = path

    def attributes(self, container: Container, caller: Caller) -> Attributes:
        """The container's own where all may read it; else the host's root's, so that nobody opens it in there."""
        return reach.readable(_host_attributes(self.path), container)

    def opened(self, container: Container, caller: Caller, write: bool) -> None:
        """EACCES to write, as without the daemon."""
        if write:
            raise error(errno.EACCES)

    def read(self, container: Container, caller: Caller) -> bytes:
        """The kernel's."""
        return reach.read(instances.procfs(), _real(self.path))


class BootId(Plain):
    """kernel/random/boot_id: another one at each start of the container."""

    def read(self, container: Container, caller: Caller) -> bytes:
        """Made of the host's, which changes with it."""
        seed = b"%s\0%s\0%d" % (super().read(container, caller), container.id.encode(), container.start_boottime_ns)
        return uuid_from(seed).encode() + b"\n"


class Stored(File):
    """The container's own value; the host's until one is written."""

    valid = FOREVER

    def __init__(self, path: str, row: table.Row) -> None:
        self.path = path
        self.row = row
        self.key = f"proc/sys/{path}"

    def attributes(self, container: Container, caller: Caller) -> Attributes:
        """The kernel's mode, the container's own."""
        return _in_container(_host_attributes(self.path), container)

    def opened(self, container: Container, caller: Caller, write: bool) -> None:
        """EACCES for who is not the container's root."""
        if write and not identity.may_store(container, caller, None):
            raise error(errno.EACCES)

    def read(self, container: Container, caller: Caller) -> bytes:
        """What was written last."""
        stored = container.values.get(self.key)
        return stored if stored is not None else reach.read(instances.procfs(), _real(self.path))

    def write(self, container: Container, caller: Caller, data: bytes) -> None:
        """Keep it if the kernel would take it."""
        if self.row.parse is None or not identity.may_store(container, caller, self.row.capability):
            raise error(errno.EPERM)
        now = Stored.read(self, container, caller)  # which asks no namespace, as a subclass does
        container.values[self.key] = self.row.parse(now, data)


class InNamespace(File):
    """The kernel's, in a namespace of the caller that a thread can visit."""

    kind: str
    slow_write = True

    def __init__(self, path: str) -> None:
        self.path = path

    def _visit(self, container: Container, caller: Caller, action: Callable[[], bytes]) -> bytes:
        return enter.at(identity.task(container, caller, self.kind), self.kind, action)

    def attributes(self, container: Container, caller: Caller) -> Attributes:
        """What stat(2) tells in there: newer kernels name the namespace's root as owner."""
        namespace = identity.open_namespace(identity.task(container, caller, self.kind), self.kind)
        try:
            found = enter.inside(namespace, self.kind, lambda: _host_attributes(self.path))
            return identity.owner_inside(container, namespace, found)
        finally:
            os.close(namespace)

    def opened(self, container: Container, caller: Caller, write: bool) -> None:
        """EACCES for whom the kernel would not let."""
        if write and not self.may_write(container, caller):
            raise error(errno.EACCES)

    def may_write(self, container: Container, caller: Caller) -> bool:
        """The kernel's rule for this kind of namespace, on the caller's credentials."""
        if not caller.pid:
            return False
        with identity.Standing(container, caller, self.kind) as standing:
            return self.rule(standing)

    def rule(self, standing: identity.Standing) -> bool:
        """May one write who stands so?"""
        raise NotImplementedError

    def read(self, container: Container, caller: Caller) -> bytes:
        """The kernel's in there."""
        return self._visit(container, caller, lambda: reach.read(instances.procfs(), _real(self.path)))

    def write(self, container: Container, caller: Caller, data: bytes) -> None:
        """Hand it to the kernel in there."""
        self.act(container, caller, lambda standing: self.put(standing, data))

    def act(self, container: Container, caller: Caller, action: Callable[[identity.Standing], bytes]) -> None:
        """Do something in the namespace, for a caller who may write there.

        Raises:
            OSError: EPERM, it may not.
        """
        if not caller.pid:
            raise error(errno.EPERM)
        with identity.Standing(container, caller, self.kind) as standing:
            if not self.rule(standing):
                raise error(errno.EPERM)
            enter.inside(standing.namespace, self.kind, lambda: action(standing))

    def put(self, standing: identity.Standing, data: bytes) -> bytes:
        """Write, in the namespace."""
        return enter.as_owner(lambda: self._write(data))

    def _write(self, data: bytes) -> bytes:
        reach.write(instances.procfs(), _real(self.path), data)
        return b""


class Ipc(InNamespace):
    """One of the IPC namespace's."""

    kind = "ipc"

    def rule(self, standing: identity.Standing) -> bool:
        """ipc_permissions() (ipc/ipc_sysctl.c): the root of its user namespace."""
        return identity.within(standing.who, standing.userns) and standing.who.euid == standing.root

    def put(self, standing: identity.Standing, data: bytes) -> bytes:
        """As the namespace's root, who has the caller's uid; before Linux 6.10 as the host's."""
        try:
            return enter.as_uid(standing.who.euid, lambda: self._write(data))
        except PermissionError:
            return super().put(standing, data)


class Uts(InNamespace):
    """hostname and domainname."""

    kind = "uts"

    def rule(self, standing: identity.Standing) -> bool:
        """As sethostname(2)."""
        return identity.capable(standing.who, identity.CAP_SYS_ADMIN, standing.userns)


class Net(InNamespace):
    """One of the network namespace's. Those that a namespace cannot write are the container's own where a row says."""

    kind = "net"

    def rule(self, standing: identity.Standing) -> bool:
        """net_ctl_permissions() (net/sysctl_net.c), without its case for the host's root."""
        return identity.capable(standing.who, identity.CAP_NET_ADMIN, standing.userns)


class PingRange(Net):
    """net/ipv4/ping_group_range: groups, so the numbers of the container, not of the daemon."""

    def read(self, container: Container, caller: Caller) -> bytes:
        """`1 0` is how the kernel spells nobody."""
        low, high = (int(word) for word in super().read(container, caller).split())
        if low > high:
            return b"1\t0\n"
        last = max(0, container.gid_size - 1)
        return b"%d\t%d\n" % tuple(min(max(0, gid - container.gid_first), last) for gid in (low, high))

    def write(self, container: Container, caller: Caller, data: bytes) -> None:
        """Kept within the groups that exist: `0 2147483647`, as container engines write it, means all of them."""
        found = numbers(data, 2)
        if len(found) != 2 or min(found) < 0:
            raise invalid()
        low, high = found
        if low <= high:
            last = container.gid_size - 1
            low, high = (container.gid_first + min(gid, last) for gid in found)
        super().write(container, caller, b"%d %d" % (low, high))


class CongestionControl(Net):
    """net/ipv4/tcp_congestion_control: one of those that are there, since another would load a module."""

    def write(self, container: Container, caller: Caller, data: bytes) -> None:
        """ENOENT for others, as for who may not load any."""
        available = reach.read(instances.procfs(), _real("net/ipv4/tcp_available_congestion_control")).split()
        if data.partition(b"\0")[0].strip() not in available:
            raise error(errno.ENOENT)
        super().write(container, caller, data)


class NetOrStored(Stored):
    """The network namespace's where it has one that may be written there, else the container's own."""

    slow_write = True
    valid = 0.0

    def __init__(self, path: str, row: table.Row) -> None:
        super().__init__(path, row)
        self.net = Net(path)

    def _where(self, container: Container, caller: Caller) -> File | None:
        """The kernel's; None for the container's own."""
        try:
            found = self.net.attributes(container, caller)
        except FileNotFoundError:
            return None
        return self.net if found.mode & _WRITABLE else None

    def attributes(self, container: Container, caller: Caller) -> Attributes:
        """As it is there."""
        there = self._where(container, caller)
        return there.attributes(container, caller) if there else super().attributes(container, caller)

    def opened(self, container: Container, caller: Caller, write: bool) -> None:
        """As it is there."""
        there = self._where(container, caller)
        return there.opened(container, caller, write) if there else super().opened(container, caller, write)

    def read(self, container: Container, caller: Caller) -> bytes:
        """As it is there."""
        there = self._where(container, caller)
        return there.read(container, caller) if there else super().read(container, caller)

    def write(self, container: Container, caller: Caller, data: bytes) -> None:
        """As it is there."""
        there = self._where(container, caller)
        return there.write(container, caller, data) if there else super().write(container, caller, data)


class User(File):
    """/proc/sys/user: limits of the caller's user namespace, which only a process can enter."""

    valid = FOREVER

    fast = False
    asks = True

    def __init__(self, path: str) -> None:
        self.path = path

    def attributes(self, container: Container, caller: Caller) -> Attributes:
        """The kernel's mode, the container's own."""
        return _in_container(_host_attributes(self.path), container)

    def opened(self, container: Container, caller: Caller, write: bool) -> None:
        """EACCES without CAP_SYS_RESOURCE."""
        if write and not self._may_write(caller):
            raise error(errno.EACCES)

    def _may_write(self, caller: Caller) -> bool:
        """set_permissions() (kernel/ucount.c), of a user namespace that is not the host's."""
        if not caller.pid:
            return False
        who = identity.credentials(caller)
        return bool(who.effective >> identity.CAP_SYS_RESOURCE & 1) and who.userns != identity.own("user")

    def read(self, container: Container, caller: Caller) -> bytes:
        """The kernel's in there."""
        userns = identity.open_namespace(identity.task(container, caller, "user"), "user")
        try:
            return deputy.in_user_namespace(userns, _real(self.path))
        finally:
            os.close(userns)

    def write(self, container: Container, caller: Caller, data: bytes) -> None:
        """Hand it to the kernel in there."""
        if not caller.pid:
            raise error(errno.EPERM)
        userns = identity.open_namespace(caller.pid, "user")
        try:
            if not self._may_write(caller):
                raise error(errno.EPERM)
            deputy.in_user_namespace(userns, _real(self.path), data)
        finally:
            os.close(userns)


class _InPid:
    """The user and pid namespaces of a task, by descriptors."""

    def __init__(self, pid: int) -> None:
        self._userns = identity.open_namespace(pid, "user")
        try:
            self._pidns = identity.open_namespace(pid, "pid")
        except OSError:
            os.close(self._userns)
            raise

    def __enter__(self) -> _InPid:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._userns)
        os.close(self._pidns)

    def ask(self, path: str, data: bytes | None = None) -> bytes:
        """Read or write in there."""
        return deputy.in_pid_namespace(self._userns, self._pidns, path, data)

    def is_writable(self, who: identity.Credentials) -> bool:
        """CAP_SYS_ADMIN over the pid namespace."""
        owner = identity.owner_of(self._pidns)
        try:
            return identity.capable(who, identity.CAP_SYS_ADMIN, owner)
        finally:
            os.close(owner)


class Pid(Stored):
    """The pid namespace's where the kernel has one for each, else the container's own."""

    fast = False
    asks = True
    _each: dict[str, bool] = {}

    def _per_namespace(self, container: Container, ask: Callable[[str], bytes]) -> bool:
        """Whether it is: then the file belongs to root as seen from inside, or the row leaves no other way."""
        found = self._each.get(self.path)
        if found is None:
            if self.row.parse is None:
                found = True
            elif not container.root_uid:
                return False  # root is root everywhere, so the owner tells nothing
            else:
                found = ask(f"?{_real(self.path)}") == b"0"
            self._each[self.path] = found
        return found

    def read(self, container: Container, caller: Caller) -> bytes:
        """The kernel's in there."""
        with _InPid(identity.task(container, caller, "pid")) as inside:
            if self._per_namespace(container, inside.ask):
                return inside.ask(_real(self.path))
        return super().read(container, caller)

    def write(self, container: Container, caller: Caller, data: bytes) -> None:
        """Hand it to the kernel in there."""
        if not caller.pid:
            raise error(errno.EPERM)
        with _InPid(identity.task(container, caller, "pid")) as inside:
            who = identity.credentials(caller)
            if self._per_namespace(container, inside.ask):
                if not inside.is_writable(who):
                    raise error(errno.EPERM)
                inside.ask(_real(self.path), data)
                return
        super().write(container, caller, data)

    def opened(self, container: Container, caller: Caller, write: bool) -> None:
        """Judged at the write."""


_FILES: dict[str, Callable[[str], File]] = {
    table.READ: Plain,
    table.IPC: Ipc,
    table.UTS: Uts,
    table.USER: User,
}
_OWN_FILES: dict[str, Callable[[str], File]] = {
    _PING_RANGE: PingRange,
    "net/ipv4/tcp_congestion_control": CongestionControl,
    "kernel/random/boot_id": BootId,
}


def file_at(path: str) -> File:
    """The node of a file below /proc/sys."""
    if (make := _OWN_FILES.get(path)) is not None:
        return make(path)
    row = table.row_of(path)
    if row is None:
        return Plain(path)
    if row.kind == table.STORE:
        return Stored(path, row)
    if row.kind == table.PID:
        return Pid(path, row)
    if row.kind == table.NET:
        return Net(path) if row.parse is None else NetOrStored(path, row)
    return _FILES[row.kind](path)


class SysctlDirectory(Directory):
    """A directory below /proc/sys, or that itself."""

    valid = FOREVER

    def __init__(self, path: str = "") -> None:
        self.path = path
        self._in_net = path == "net" or path.startswith("net/")
        self._in_ipc = path.startswith("fs/mqueue")
        self.slow_names = self._in_net  # a container makes as many devices as it likes, with some directories for each

    def attributes(self, container: Container, caller: Caller) -> Attributes:
        """All may look, nobody may make anything."""
        return Attributes(stat.S_IFDIR | 0o555, 0, container.root_uid, container.root_gid, 2)

    def _there(self, container: Container, caller: Caller, action: Callable[[], object]) -> object:
        """Look where the caller would."""
        kind = "net" if self._in_net else "ipc" if self._in_ipc else None
        return action() if kind is None else enter.at(identity.task(container, caller, kind), kind, action)

    def names(self, container: Container, caller: Caller) -> list[tuple[str, int]]:
        """What is there in the caller's namespaces, and what the container has of its own."""
        found: dict[str, int] = {}

        def list_it() -> None:
            try:
                found.update(reach.names(instances.procfs(), _real(self.path)))
            except FileNotFoundError:
                pass  # a directory that only the host has, with rows below it

        self._there(container, caller, list_it)
        for name in _row_names(self.path):
            if name not in found and _exists(f"{self.path}/{name}"):
                found[name] = DT_DIR if f"{self.path}/{name}" in _PARENTS else DT_REG
        return list(found.items())

    def lookup(self, container: Container, caller: Caller, name: str) -> Node:
        """A directory or a file of the caller's namespaces, or one of the container's own."""
        path = f"{self.path}/{reach.component(name)}" if self.path else reach.component(name)
        seen: list[Attributes] = []

        def look() -> None:
            try:
                seen.append(_host_attributes(path))
            except FileNotFoundError:
                pass

        self._there(container, caller, look)
        if not seen:
            if path not in table.ROWS and path not in _PARENTS:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            seen.append(_host_attributes(path))  # the container's own, if the host has it
        return SysctlDirectory(path) if reach.is_directory(seen[0]) else file_at(path)


# Directories that rows lie in.
_PARENTS = {path[:at] for path in table.ROWS for at, character in enumerate(path) if character == "/"}


def _row_names(path: str) -> list[str]:
    prefix = f"{path}/"
    below = {one[len(prefix) :].partition("/")[0] for one in table.ROWS if one.startswith(prefix)}
    return sorted(below)


def _exists(path: str) -> bool:
    try:
        _host_attributes(path)
    except FileNotFoundError:
        return False
    return True

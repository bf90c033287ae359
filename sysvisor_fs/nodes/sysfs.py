"""Parts of /sys: what the machine says of itself, to be read; devices of the container's own network.

What only the host's root may read stays closed, as in any sysfs that a user namespace sees.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from sysvisor_fs.identifier import uuid_from
from sysvisor_fs.node import Branch, Directory, File, Link, d_type
from sysvisor_fs.nodes.sysctl import Net
from sysvisor_fs.passthrough import enter, identity, instances, reach
from sysvisor_fs.passthrough.identity import error

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from sysvisor_fs.node import Attributes, Caller, Container, Node
    from sysvisor_fs.nodes.sysctl_table import Row

    Answer = TypeVar("Answer")

_NET = "devices/virtual/net"


class _Entry:
    """Something at a path below /sys."""

    path: str
    fast = False  # a driver's file may wait

    def reached(self, container: Container, caller: Caller, action: Callable[[int], Answer]) -> Answer:
        """Do something with the sysfs that it is in."""
        if self.path != _NET and not self.path.startswith(f"{_NET}/"):
            return action(instances.sysfs())
        return enter.at(identity.task(container, caller, "net"), "net", lambda: _with_new(action))


def _with_new(action: Callable[[int], Answer]) -> Answer:
    """With the sysfs of the network namespace that the thread is in: a mount of it belongs to one for ever."""
    fd = instances.new("sysfs")
    try:
        return action(fd)
    finally:
        os.close(fd)


class SysFile(_Entry, File):
    """A file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def attributes(self, container: Container, caller: Caller) -> Attributes:
        """The kernel's, to be read."""
        found = self.reached(container, caller, lambda root: reach.attributes(root, self.path))
        return reach.readable(found, container)

    def opened(self, container: Container, caller: Caller, write: bool) -> None:
        """Not for writing."""
        if write:
            raise error(errno.EACCES)

    def read(self, container: Container, caller: Caller) -> bytes:
        """The kernel's."""
        return self.reached(container, caller, lambda root: reach.read(root, self.path))


# What net/core/net-sysfs.c, the bridge's and its ports' files let the owner of the network namespace write.
_DEVICE_FILES = frozenset(
    ("carrier", "flags", "gro_flush_timeout", "group", "ifalias", "mtu", "napi_defer_hard_irqs", "proto_down",
     "threaded", "tx_queue_len")
)  # fmt: skip
_DEVICE_FOLDERS = frozenset(("bridge", "brport"))


class NetDeviceFile(SysFile):
    """A setting of a network device of the container."""

    def attributes(self, container: Container, caller: Caller) -> Attributes:
        """The kernel's, which the root of the network namespace owns."""
        namespace = identity.open_namespace(identity.task(container, caller, "net"), "net")
        try:
            found = enter.inside(namespace, "net", lambda: _with_new(lambda root: reach.attributes(root, self.path)))
            return identity.owner_inside(container, namespace, found)
        finally:
            os.close(namespace)

    def opened(self, container: Container, caller: Caller, write: bool) -> None:
        """EACCES without CAP_NET_ADMIN over the namespace."""
        if write and not self._judge().may_write(container, caller):
            raise error(errno.EACCES)

    def _judge(self) -> Net:
        return Net("")

    def write(self, container: Container, caller: Caller, data: bytes) -> None:
        """Hand it to the kernel in there."""
        self._judge().act(container, caller, lambda _: _with_new(lambda root: self._put(root, data)))

    def _put(self, root: int, data: bytes) -> bytes:
        enter.as_owner(lambda: reach.write(root, self.path, data))
        return b""


def _is_setting(path: str) -> bool:
    parts = path[len(_NET) + 1 :].split("/") if path.startswith(f"{_NET}/") else []
    if len(parts) == 2:
        return parts[1] in _DEVICE_FILES
    return len(parts) == 3 and parts[1] in _DEVICE_FOLDERS


class SysLink(_Entry, Link):
    """A symbolic link: sysfs has relative ones only."""

    def __init__(self, path: str) -> None:
        self.path = path

    def target(self, container: Container, caller: Caller) -> bytes:
        """The kernel's."""
        return self.reached(container, caller, lambda root: os.readlink(os.fsencode(self.path), dir_fd=root))


class SysDirectory(_Entry, Directory):
    """A directory, with entries of our own laid over the kernel's."""

    def __init__(self, path: str, own: dict[str, Node] | None = None) -> None:
        self.path = path
        self.own = own or {}

    def attributes(self, container: Container, caller: Caller) -> Attributes:
        """The kernel's mode, without the right to make anything."""
        try:
            found = self.reached(container, caller, lambda root: reach.attributes(root, self.path))
        except FileNotFoundError:
            return super().attributes(container, caller)
        mode = stat.S_IFDIR | stat.S_IMODE(found.mode) & ~0o222
        return found._replace(size=0, mode=mode, uid=container.root_uid, gid=container.root_gid)

    def names(self, container: Container, caller: Caller) -> list[tuple[str, int]]:
        """The kernel's and ours."""
        try:
            found = dict(self.reached(container, caller, lambda root: reach.names(root, self.path)))
        except FileNotFoundError:
            found = {}
        return list((found | {name: d_type(node) for name, node in self.own.items()}).items())

    def lookup(self, container: Container, caller: Caller, name: str) -> Node:
        """Ours first."""
        own = self.own.get(name)
        if own is not None:
            return own
        path = f"{self.path}/{reach.component(name)}"
        return self._node(path, _Path(path).reached(container, caller, lambda root: reach.attributes(root, path)))

    def _node(self, path: str, found: Attributes) -> Node:
        if reach.is_directory(found):
            return SysDirectory(path)
        if reach.is_link(found):
            return SysLink(path)
        return NetDeviceFile(path) if _is_setting(path) else SysFile(path)


class _Path(_Entry):
    def __init__(self, path: str) -> None:
        self.path = path


class Mountpoint(Directory):
    """An empty directory that something may be mounted on, whether the host has it or not."""

    def __init__(self, mode: int) -> None:
        self.mode = mode

    def names(self, container: Container, caller: Caller) -> list[tuple[str, int]]:
        """Nothing."""
        return []


class ProductUuid(File):
    """devices/virtual/dmi/id/product_uuid: a machine of its own has one of its own, always the same."""

    mode = 0o400

    def read(self, container: Container, caller: Caller) -> bytes:
        """Made of the container's id and the host's, so that no other host has it."""
        try:
            host = reach.read(instances.sysfs(), "devices/virtual/dmi/id/product_uuid")
        except OSError:
            host = b""
        return uuid_from(host + b"\0" + container.id.encode()).encode() + b"\n"


class Parameter(File):
    """A module's parameter that is the container's own value."""

    mode = 0o600

    def __init__(self, path: str, row: Row) -> None:
        self.path = path
        self.row = row
        self.key = f"sys/{path}"

    def opened(self, container: Container, caller: Caller, write: bool) -> None:
        """EACCES for who is not the container's root."""
        if write and not identity.may_store(container, caller, None):
            raise error(errno.EACCES)

    def read(self, container: Container, caller: Caller) -> bytes:
        """What was written last; the host's before."""
        stored = container.values.get(self.key)
        return stored if stored is not None else reach.read(instances.sysfs(), self.path)

    def write(self, container: Container, caller: Caller, data: bytes) -> None:
        """Keep it if the kernel would take it."""
        if self.row.parse is None or not identity.may_store(container, caller, self.row.capability):
            raise error(errno.EPERM)
        container.values[self.key] = self.row.parse(self.read(container, caller), data)


class IfThere(Branch):
    """Directories that are laid over the host's where it has them: modules come later than the daemon."""

    def __init__(self, path: str, entries: dict[str, Node]) -> None:
        super().__init__(entries)
        self.path = path

    def names(self, container: Container, caller: Caller) -> list[tuple[str, int]]:
        """Those of which the host has the like."""
        return [one for one in super().names(container, caller) if self._is_there(one[0])]

    def lookup(self, container: Container, caller: Caller, name: str) -> Node:
        """As in a directory without it."""
        node = super().lookup(container, caller, name)
        if not self._is_there(name):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return node

    def _is_there(self, name: str) -> bool:
        return os.path.exists(f"/sys/{self.path}/{name}")


def virtual() -> Directory:
    """/sys/devices/virtual."""
    identity_files = SysDirectory("devices/virtual/dmi/id", {"product_uuid": ProductUuid()})
    return SysDirectory("devices/virtual", {"dmi": SysDirectory("devices/virtual/dmi", {"id": identity_files})})


def kernel() -> Directory:
    """/sys/kernel, with the places where a system mounts its own."""
    return SysDirectory(
        "kernel",
        {"config": Mountpoint(0o755), "debug": Mountpoint(0o700), "security": Mountpoint(0o755),
         "tracing": Mountpoint(0o700)},
    )  # fmt: skip


def conntrack_parameters(hashsize: Row) -> Directory:
    """/sys/module/nf_conntrack/parameters."""
    place = "module/nf_conntrack/parameters"
    return SysDirectory(place, {"hashsize": Parameter(f"{place}/hashsize", hashsize)})

"""Who a caller is to the kernel: its namespaces, and whether it is capable in the user namespace that owns another.

A request holds its caller in the system call, so its pid stays that task's until the answer; nothing found here is
kept longer. A signal or the deadline may have it answered while a worker is still about it: who acts for a caller has
taken all that it goes by before, as descriptors and numbers, and its credentials last (`Standing`). Ids are the host's.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from sysvisor_fs.passthrough import instances

if TYPE_CHECKING:
    from sysvisor_fs.node import Attributes, Caller, Container

# include/uapi/linux/nsfs.h
NS_GET_USERNS = 0xB701
NS_GET_PARENT = 0xB702
NS_GET_OWNER_UID = 0xB704

CAP_NET_ADMIN = 12
CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24
CAP_SYS_PTRACE = 19
_DEEPEST = 33  # user namespaces nest 32 deep

_own: dict[str, int] = {}


class Credentials(NamedTuple):
    """What decides: effective user id and capabilities, and the user namespace that those are of."""

    euid: int
    effective: int
    userns: int


def error(number: int) -> OSError:
    """An OSError of that errno."""
    return OSError(number, os.strerror(number))


def open_namespace(pid: int, kind: str) -> int:
    """A descriptor of a task's namespace: net, ipc, uts, user, pid. ESRCH for one that has ended."""
    try:
        return os.open(f"{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=instances.procfs())
    except FileNotFoundError:
        raise error(errno.ESRCH)


def inode(pid: int, kind: str) -> int:
    """Which namespace that is."""
    try:
        return os.stat(f"{pid}/ns/{kind}", dir_fd=instances.procfs()).st_ino
    except FileNotFoundError:
        raise error(errno.ESRCH)


def own(kind: str) -> int:
    """The inode of the daemon's own: the host's, as far as a container is concerned."""
    found = _own.get(kind)
    if found is None:
        found = _own[kind] = inode(os.getpid(), kind)
    return found


def task(container: Container, caller: Caller, kind: str) -> int:
    """Whose namespace is meant: the caller's own, or that of the container's init for one who looks in from outside.

    Raises:
        OSError: EPERM, even the container is in the host's; ESRCH, it has ended.
    """
    if caller.pid and inode(caller.pid, kind) != own(kind):
        return caller.pid
    if not container.init_pid:
        raise error(errno.ESRCH)
    if inode(container.init_pid, kind) == own(kind):
        raise error(errno.EPERM)
    return container.init_pid


def credentials(caller: Caller) -> Credentials:
    """Of a caller, who waits: what was found by its pid until now was its own.

    Raises:
        OSError: ESRCH, it has ended, or is another than the one who asked: it was killed, and its number given again;
            EINTR, it has been let go.
    """
    fields = _status(caller.pid)
    _, euid, _, fsuid = (int(word) for word in fields[b"Uid"].split())
    if fsuid != caller.uid:
        raise error(errno.ESRCH)
    found = Credentials(euid, int(fields[b"CapEff"], 16), inode(caller.pid, "user"))
    if not caller.waits():
        raise error(errno.EINTR)
    return found


def _status(pid: int) -> dict[bytes, bytes]:
    try:
        fd = os.open(f"{pid}/status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=instances.procfs())
    except FileNotFoundError:
        raise error(errno.ESRCH)
    try:
        text = os.read(fd, 1 << 16)
    finally:
        os.close(fd)
    pairs = (line.partition(b":") for line in text.splitlines())
    return {name: value for name, _, value in pairs}


def owner_of(namespace: int) -> int:
    """A descriptor of the user namespace that owns another one."""
    return fcntl.ioctl(namespace, NS_GET_USERNS)


def _owner_uid(userns: int) -> int:
    room = array.array("I", [0])
    fcntl.ioctl(userns, NS_GET_OWNER_UID, room)
    return room[0]


def owner_inside(container: Container, namespace: int, found: Attributes) -> Attributes:
    """What stat(2) tells of an entry of a namespace, as a container may know it.

    Older kernels say that all belongs to the host's root. That means the container's root where the namespace is owned
    by the container's user namespace, or where all may read it; in a namespace of the host's that was joined it means
    the host's, and what is closed stays closed.
    """
    if found.uid:
        return found
    if not found.mode & stat.S_IROTH and not _is_owned_by(container, namespace):
        return found
    return found._replace(uid=container.root_uid, gid=container.root_gid)


def _is_owned_by(container: Container, namespace: int) -> bool:
    """Whether it is the container's user namespace that owns a namespace."""
    if not container.init_pid:
        return False
    try:
        userns = owner_of(namespace)
    except PermissionError:
        return False  # above our own
    try:
        return os.fstat(userns).st_ino == inode(container.init_pid, "user")
    finally:
        os.close(userns)


def capable(who: Credentials, capability: int, userns: int) -> bool:
    """cap_capable() of the kernel (security/commoncap.c); `userns` is a descriptor and stays the caller's."""
    at = os.dup(userns)
    try:
        for _ in range(_DEEPEST):
            if os.fstat(at).st_ino == who.userns:
                return bool(who.effective >> capability & 1)
            try:
                above = fcntl.ioctl(at, NS_GET_PARENT)
            except PermissionError:
                return False  # the top, or outside of what we see
            below, at = at, above
            try:
                if os.fstat(at).st_ino == who.userns and _owner_uid(below) == who.euid:
                    return True
            finally:
                os.close(below)
        return False
    finally:
        os.close(at)


def within(who: Credentials, userns: int) -> bool:
    """Whether someone lives in a user namespace or above it, so that its ids mean there what they mean here."""
    return capable(who._replace(effective=~0, euid=-1), 0, userns)


def root_uid(container: Container, who: int, userns: int) -> int:
    """The host's uid of root in a user namespace: the container's own, or that of task `who`; -1 for others."""
    number = os.fstat(userns).st_ino
    if container.init_pid and inode(container.init_pid, "user") == number:
        return container.root_uid
    if inode(who, "user") != number:
        return -1
    with open(f"/proc/{who}/uid_map", "rb") as file:
        for line in file:
            inside, outside, _ = map(int, line.split())
            if inside == 0:
                return outside
    return -1


class Standing:
    """What a caller is judged by and acts in, taken at once: afterwards nothing is asked by its pid.

    Attributes:
        namespace: a descriptor of the one that is meant.
        userns: a descriptor of the user namespace that owns it.
        root: the host's uid of the root in there.
        who: the caller's credentials.
    """

    __slots__ = ("namespace", "root", "userns", "who")

    def __init__(self, container: Container, caller: Caller, kind: str) -> None:
        self.userns = -1
        self.namespace = open_namespace(task(container, caller, kind), kind)
        try:
            self.userns = owner_of(self.namespace)
            self.root = root_uid(container, caller.pid, self.userns)
            self.who = credentials(caller)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Standing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its descriptors."""
        for fd in (self.namespace, self.userns):
            if fd >= 0:
                os.close(fd)


def may_store(container: Container, caller: Caller, capability: int | None) -> bool:
    """Whether one may write what is the container's alone: its root, where it is root, as the host's is for the host's.

    A process of a user namespace inside is not, even with the same uid. `capability`: what the kernel wants besides.
    """
    if not caller.pid or not container.init_pid:
        return False
    userns = open_namespace(container.init_pid, "user")
    try:
        who = credentials(caller)
        if not within(who, userns):
            return False
        if capability is not None and not capable(who, capability, userns):
            return False
        return who.euid == container.root_uid or capable(who, CAP_SYS_ADMIN, userns)
    finally:
        os.close(userns)

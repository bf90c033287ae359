"""Containers that share namespaces share the user namespace that owns them: pods, `docker run --network container:X`.

A pid, ipc or network namespace obeys the user namespace that made it. Whoever joins another system container's, with
ids of its own, can mount no procfs there and has nothing of what root makes there; so it joins that one as well, which
is how Kubernetes defines pods with user namespaces. Loaded only for a spec that gives a namespace by path.
"""

from __future__ import annotations

import os

from sysvisor_runc.errors import LaunchError, SysvisorError, reason
from sysvisor_runc.kernel import file
from sysvisor_runc.kernel.namespaces import CLONE_NEWUSER, clone3, setns
from sysvisor_runc.kernel.prctl import PR_SET_DUMPABLE, prctl
from sysvisor_runc.state.process import is_alive
from sysvisor_runc.state.subid import share

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sysvisor_runc.spec.types import Namespace, Spec
    from sysvisor_runc.state.store import Entry

_NS_GET_USERNS = 0xB701


def owner(path: str) -> os.stat_result | None:
    """Which user namespace owns the namespace at `path` (ioctl_ns(2), Linux 4.9); None where we may not know."""
    from fcntl import ioctl

    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = ioctl(fd, _NS_GET_USERNS)
        finally:
            os.close(fd)
    except OSError:
        return None
    try:
        return os.fstat(found)
    finally:
        os.close(found)


def joining_owner(spec: Spec, entry: Entry) -> Spec:
    """The spec, with the user namespace of the container whose namespaces it joins, unless it says which it wants.

    Where these are the host's, it is that of a container of the same state root that lives in them, too.
    """
    linux = spec.get("linux", {})
    given = linux.get("namespaces", [])
    if any(ns["type"] == "user" for ns in given) or linux.get("uidMappings") or linux.get("gidMappings"):
        return spec
    path = next((found for ns in given if (found := _users_path(ns))), None) or _neighbours_path(given, entry)
    if path is None:
        return spec
    user: Namespace = {"type": "user", "path": path}
    return {**spec, "linux": {**linux, "namespaces": [*given, user]}}


def ids_of(path: str) -> tuple[int, int, int] | None:
    """The range of the user namespace at `path`: host (uid, gid) of its 0 and how many; None where 0 is not mapped.

    Raises:
        LaunchError: it cannot be entered.
    """
    if path.startswith("/proc/") and path.endswith("/ns/user"):
        return _ids_of_process(path.removesuffix("/ns/user"))
    # A file that it is pinned to, as CRI-O does: only a process in it has files that tell the maps.
    ready, release = os.pipe(), os.pipe()
    pid, pidfd = clone3(0)
    if pid == 0:
        _enter_and_wait(path, ready[1], release)
    os.close(ready[1])
    os.close(release[0])
    try:
        problem = file.rest(ready[0]).decode("utf-8", "surrogateescape")
        if problem:
            raise LaunchError(f"namespace {path!r}: {problem}")
        return _ids_of_process(f"/proc/{pid}")
    finally:
        os.close(ready[0])
        os.close(release[1])
        os.close(pidfd)
        os.waitpid(pid, 0)


def _enter_and_wait(path: str, ready: int, release: tuple[int, int]) -> NoReturn:
    """Be a process in the user namespace until the other end of `release` closes; `ready` says what was in the way."""
    try:
        os.close(release[1])
        prctl(PR_SET_DUMPABLE, 0)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        setns(fd, CLONE_NEWUSER, operand=path)
        os.close(ready)
        os.read(release[0], 1)
    except OSError as error:
        os.write(ready, reason(error).encode())
    finally:
        os._exit(0)


def _ids_of_process(directory: str) -> tuple[int, int, int] | None:
    uid, gid = _first_mapping(f"{directory}/uid_map"), _first_mapping(f"{directory}/gid_map")
    return (uid[0], gid[0], min(uid[1], gid[1])) if uid and gid else None


def _first_mapping(path: str) -> tuple[int, int] | None:
    try:
        lines = file.read(path).decode().splitlines()
    except OSError:
        return None
    for line in lines:
        inside, outside, size = line.split()
        if inside == "0":
            return int(outside), int(size)
    return None


def keep_ids(ids: tuple[int, int, int]) -> None:
    """Have the ids of a joined user namespace stay taken while somebody lives there, whoever is deleted first."""
    share(ids[0], ids[1])


def _neighbours_path(given: list[Namespace], entry: Entry) -> str | None:
    """The path of the user namespace that another system container has in the ipc namespace of a pod of CRI-O's.

    No container owns that one. With ids of their own its inhabitants could not open each other's message queues.
    """
    ipc = next((ns.get("path") for ns in given if ns["type"] == "ipc"), None)
    if not ipc:
        return None
    from sysvisor_runc.state.store import Store

    store = Store(os.path.dirname(entry.path))
    for name in store.ids():
        try:
            with store.open(name) as other:
                record = other.load()
            process = f"/proc/{record['initPid']}"
            if (
                is_alive(record["initPid"], record["initStart"])
                and os.path.samestat(os.stat(f"{process}/ns/ipc"), os.stat(ipc))
                and not os.path.samestat(os.stat(f"{process}/ns/user"), os.stat("/proc/self/ns/user"))
            ):
                return f"{process}/ns/user"
        except (SysvisorError, OSError):
            continue  # ours, which has no record yet, or one that is going
    return None


def _users_path(ns: Namespace) -> str | None:
    """The path of the user namespace that owns this one, where it is the process' own and not the host's."""
    path = ns.get("path", "")
    process, _, file = path.rpartition("/ns/")
    if not (file and process.startswith("/proc/")):
        return None
    found = owner(path)
    try:
        if found is None or os.path.samestat(found, os.stat("/proc/self/ns/user")):
            return None
        return f"{process}/ns/user" if os.path.samestat(found, os.stat(f"{process}/ns/user")) else None
    except OSError:
        return None

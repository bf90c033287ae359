"""Containers that share namespaces share the user namespace that owns them: pods, `docker run --network container:X`.

A pid, ipc or network namespace obeys the user namespace that made it. Whoever joins another system container's, with
ids of its own, can mount no procfs there and has nothing of what root makes there; so it joins that one as well, which
is how Kubernetes defines pods with user namespaces. Loaded only for a spec that gives a namespace by path.
"""

from __future__ import annotations

import os

from sysvisor_runc.state.subid import share

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Namespace, Spec

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


def joining_owner(spec: Spec) -> Spec:
    """The spec, with the user namespace of the container whose namespaces it joins, unless it says which it wants."""
    linux = spec.get("linux", {})
    given = linux.get("namespaces", [])
    if any(ns["type"] == "user" for ns in given) or linux.get("uidMappings") or linux.get("gidMappings"):
        return spec
    path = next((found for ns in given if (found := _users_path(ns))), None)
    if path is None:
        return spec
    user: Namespace = {"type": "user", "path": path}
    return {**spec, "linux": {**linux, "namespaces": [*given, user]}}


def keep_ids(ids: tuple[int, int, int]) -> None:
    """Have the ids of a joined user namespace stay taken while somebody lives there, whoever is deleted first."""
    share(ids[0], ids[1])


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

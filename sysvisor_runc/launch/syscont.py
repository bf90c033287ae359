"""The conversion to a system container: look at the host and the root file system, then let syscont decide.

Loaded only in system-container mode. What is looked up inside the rootfs goes through child.paths, since the rootfs
belongs to a stranger.
"""

from __future__ import annotations

import os

from sysvisor_runc import log
from sysvisor_runc.child import paths
from sysvisor_runc.errors import LaunchError, SpecError, reason
from sysvisor_runc.kernel import capability
from sysvisor_runc.kernel.namespaces import in_initial_user
from sysvisor_runc.kernel.prctl import capget
from sysvisor_runc.kernel.statfs import OVERLAYFS_SUPER_MAGIC, fstatfs
from sysvisor_runc.launch.steps import reached
from sysvisor_runc.plan.namespaces import NAMESPACES
from sysvisor_runc.syscont import facts as wanted
from sysvisor_runc.syscont.convert import convert, convert_exec
from sysvisor_runc.syscont.facts import HostFacts, PathFacts
from sysvisor_runc.syscont.ids import needs_ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.layout import Layout
    from sysvisor_runc.launch.request import Request
    from sysvisor_runc.launch.undo import UndoStack
    from sysvisor_runc.spec.types import Mount, Process, Spec
    from sysvisor_runc.state.record import Record, SubidRecord
    from sysvisor_runc.state.store import Entry
    from sysvisor_runc.syscont.traits import Traits

CAP_SYS_ADMIN = 21
CAP_MKNOD = 27
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def convert_spec(
    spec: Spec,
    request: Request,
    bundle: str,
    layout: Layout,
    entry: Entry,
    undo: UndoStack,
    fs_mountpoint: str | None,
) -> tuple[Spec, Traits, SubidRecord | None]:
    """The spec of the system container, its traits, and the id range that was allocated for it.

    Raises:
        SpecError: the spec asks for what a system container cannot have.
        StateError: no id range is left.
    """
    if request.cpuset_from_quota:
        spec = {**spec, "annotations": {**spec.get("annotations", {}), "org.sysvisor.cpuset-from-quota": "true"}}
    if wanted.paths_to_probe(spec):
        from sysvisor_runc.launch.pod import joining_owner

        spec = joining_owner(spec, entry)
    subid: SubidRecord | None = None
    own_ids = None if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    users: tuple[int, int, int] | None = None
    if request.again is not None:
        subid = request.again.record["subid"]
    if own_ids is not None and needs_ids(spec):
        from sysvisor_runc.state.subid import ids_of_user

        users = ids_of_user(own_ids[0])
    elif needs_ids(spec) and request.again is None:
        from sysvisor_runc.state.subid import allocate, free

        reached("ids")
        subid = allocate(entry.path, wanted=request.subid)
        taken = subid
        undo.push("subordinate ids", lambda: free(entry.path, taken))
    spec = _with_plain_mounts(spec, bundle)
    facts = _gather(spec, request, bundle, layout, subid)
    facts.fs_mountpoint = fs_mountpoint
    facts.cpus = tuple(sorted(os.sched_getaffinity(0)))
    facts.own_ids = own_ids
    facts.id_range = users or facts.id_range
    converted, traits = convert(spec, facts)
    if facts.joined_ids is not None:
        from sysvisor_runc.launch.pod import keep_ids

        keep_ids(facts.joined_ids)
    for warning in traits.warnings:
        log.warning(warning)
    if traits.chown_rootfs and traits.ids is not None:
        from sysvisor_runc.launch.chown import chown_tree

        chown_tree(facts.rootfs_path, traits.ids)
    return converted, traits, subid


def _with_plain_mounts(spec: Spec, bundle: str) -> Spec:
    """The spec, with destinations of the container's own, and with images as binds."""
    rootfs = os.path.normpath(os.path.join(bundle, spec["root"]["path"]))
    if any(_within(mount["destination"], rootfs) for mount in spec.get("mounts") or ()):
        spec = {**spec, "mounts": [_inner(mount, rootfs) for mount in spec["mounts"]]}
    if any(mount.get("type") == "overlay" for mount in spec.get("mounts") or ()):
        from sysvisor_runc.launch.imagevolume import as_bind

        spec = {**spec, "mounts": [as_bind(mount) for mount in spec["mounts"]]}
    return spec


def _inner(mount: Mount, rootfs: str) -> Mount:
    """A destination may be given as the path on the host (as with runc); from here on it is one of the container's."""
    return {**mount, "destination": _within(mount["destination"], rootfs) or mount["destination"]}


def convert_joining(process: Process, record: Record) -> None:
    """Apply the same rules to a further process of the container, in place."""
    known = capability.NAMES[: capability.last_cap() + 1]
    facts = HostFacts(
        record["id"],
        record["rootfs"],
        PathFacts(),
        kernel=wanted.kernel_version(os.uname().release),
        capabilities=capget()[0],
        cap_names=known,
        oom_score_adj=_own_oom_score_adj(),
        rlimits=_own_rlimits(process),
    )
    converted, warnings = convert_exec(process, record["spec"], facts)
    for warning in warnings:
        log.warning(warning)
    process.update(converted)


def _gather(spec: Spec, request: Request, bundle: str, layout: Layout, subid: SubidRecord | None) -> HostFacts:
    rootfs = os.path.normpath(os.path.join(bundle, spec["root"]["path"]))
    try:
        root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        hint = "root.path is relative to the bundle" if error.errno == 2 else None
        raise SpecError("root.path", f"{rootfs!r}: {reason(error)}", hint=hint) from error
    try:
        release = os.uname().release
        host_paths = [path for path in wanted.host_candidates(release) if os.path.isdir(path)]
        sources = {
            path: _probe(os.path.join(bundle, path))
            for path in [*wanted.sources_to_probe(spec), *host_paths]
            # What is bound from there the child opens in the container, where it has the container's ids.
            if not _within(os.path.join(bundle, path), rootfs)
            if path
        }
        from sysvisor_runc.syscont.interface import container_uuid

        return HostFacts(
            request.container_id,
            rootfs,
            _layered_facts(root),
            kernel=wanted.kernel_version(release),
            # Limits and OOM scores the kernel judges in the initial user namespace, whatever we have in ours.
            capabilities=capget()[0] if in_initial_user() else 0,
            cap_names=capability.NAMES[: capability.last_cap() + 1],
            container_uuid=container_uuid(request.container_id, _read("/etc/machine-id").strip()),
            oom_score_adj=_own_oom_score_adj(),
            rlimits=_own_rlimits(spec["process"]),
            id_range=None if subid is None else (subid["uid"], subid["gid"], subid["size"]),
            joined_ids=_joined_ids(spec),
            namespaces=_namespaces(),
            ns_shared={path: _is_shared(path) for path in wanted.paths_to_probe(spec)},
            ns_ours={path: _is_ours(path) for path in wanted.paths_to_probe(spec)},
            sources=sources,
            destinations={path: _resolve(root, path) for path in wanted.destinations_to_probe(spec)},
            args0=_find_program(root, spec["process"]),
            host_paths=frozenset(host_paths),
            rootfs_dirs=frozenset(path for path in wanted.ROOTFS_DIRS if _is_directory(root, path)),
            filesystems=frozenset(line.rpartition("\t")[2] for line in _read("/proc/filesystems").splitlines()),
            cgroup=layout.kind,
            os_release=_read("/etc/os-release"),
            credentials=request.credentials,
            may_mknod=_may_mknod(),
            machine_devices={path: n for path, n in wanted.MACHINE_DEVICES.items() if os.path.exists(path)},
            uid_shift=request.uid_shift,
        )
    finally:
        os.close(root)


def _read(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(1 << 16).decode("utf-8", "replace")
    except OSError:
        return ""


def _may_mknod() -> bool:
    """Whether mknod(2) makes devices that work: the kernel wants the capability in the initial user namespace."""
    return bool(capget()[0] >> CAP_MKNOD & 1) and in_initial_user()


def _own_oom_score_adj() -> int:
    return int(_read("/proc/self/oom_score_adj") or 0)


def _own_rlimits(process: Process) -> dict[str, tuple[int, int]]:
    """The caller's limits of the types that the process names, -1 for infinity."""
    if not process.get("rlimits"):
        return {}
    import resource

    return {
        limit["type"]: resource.getrlimit(getattr(resource, limit["type"]))
        for limit in process["rlimits"]
        if hasattr(resource, limit["type"])
    }


def _path_facts(fd: int) -> PathFacts:
    status = os.fstat(fd)
    device = (status.st_mode & 0o170000) in (0o020000, 0o060000)
    return PathFacts(fstatfs(fd), status.st_uid, status.st_gid, device=device)


def _layered_facts(fd: int) -> PathFacts:
    """… of a path where an overlay may be mounted."""
    found = _path_facts(fd)
    if found.magic == OVERLAYFS_SUPER_MAGIC and capget()[0] >> CAP_SYS_ADMIN & 1:
        from sysvisor_runc.launch.layers import find_layers

        found.layers = find_layers(fd)
    return found


def _within(path: str, rootfs: str) -> str:
    """What `path` of the host is in the container; "" where it is not below the root file system."""
    path = os.path.normpath(path)
    return path[len(rootfs) :] if rootfs != "/" and path.startswith(f"{rootfs}/") else ""


def _probe(path: str) -> PathFacts:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise LaunchError(f"bind source {path!r}: {reason(error)}", hint="make it first") from error
    try:
        found = _layered_facts(fd)
        if found.layers is not None:
            from sysvisor_runc.launch.layers import is_bare

            found.layers = found.layers if is_bare(fd) else None  # another mount of them would not have what is on it
        return found
    finally:
        os.close(fd)


def _joined_ids(spec: Spec) -> tuple[int, int, int] | None:
    """The range of a user namespace given by path."""
    for entry in (spec.get("linux") or {}).get("namespaces") or ():
        path = entry.get("path")
        if entry["type"] == "user" and path:
            from sysvisor_runc.launch.pod import ids_of

            return ids_of(path)
    return None


def _namespaces() -> frozenset[str]:
    """The namespace types of this kernel: a kernel without one has no file for it."""
    there = set(os.listdir("/proc/self/ns"))
    return frozenset(kind for kind, (_, file) in NAMESPACES.items() if file in there)


def _is_shared(path: str) -> bool:
    """Whether `path` is a namespace of ours, or of the host's init."""
    try:
        given = os.stat(path)
        name = os.path.basename(os.readlink(path)) if os.path.islink(path) else ""
        kind = name.partition(":")[0]
        for process in ("self", "1"):
            for file in [kind] if kind else os.listdir("/proc/self/ns"):
                if os.path.samestat(given, os.stat(f"/proc/{process}/ns/{file}")):
                    return True
    except OSError as error:
        if error.filename == path:
            raise LaunchError(f"namespace {path!r}: {reason(error)}") from error
    return False


def _is_ours(path: str) -> bool:
    """Whether our own user namespace owns the namespace at `path`."""
    from sysvisor_runc.launch.pod import owner

    found = owner(path)
    return found is not None and os.path.samestat(found, os.stat("/proc/self/ns/user"))


def _resolve(root: int, path: str) -> str:
    """Where `path` leads inside the rootfs; as it stands where it is not there yet."""
    try:
        fd = paths.open_in_root(root, path)
    except OSError:
        return path
    try:
        found, top = os.readlink(f"/proc/self/fd/{fd}"), os.readlink(f"/proc/self/fd/{root}")
    finally:
        os.close(fd)
    inside = found[len(top.rstrip("/")) :] if found.startswith(top) else path
    return inside or "/"


def _is_directory(root: int, path: str) -> bool:
    try:
        os.close(paths.open_in_root(root, path, os.O_PATH | os.O_DIRECTORY))
    except OSError:
        return False
    return True


def _find_program(root: int, process: Process) -> str | None:
    """What args[0] really is inside the rootfs once PATH and links are followed; None where it is not there."""
    name = process["args"][0]
    if "/" in name:
        candidates = [os.path.join(process["cwd"], name)]
    else:
        search = _DEFAULT_PATH
        for entry in process.get("env") or ():
            if entry.startswith("PATH="):
                search = entry[5:]
        candidates = [f"{directory}/{name}" for directory in search.split(":") if directory]
    for candidate in candidates:
        try:
            fd = paths.open_in_root(root, candidate)
        except OSError:
            continue
        os.close(fd)
        return _resolve(root, candidate)
    return None

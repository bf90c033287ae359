"""Look at what this host supports, by trying it where that leaves no trace. Loaded by `doctor` alone."""

from __future__ import annotations

import os

from sysvisor_runc.cgroup.layout import detect
from sysvisor_runc.cgroup.paths import container_paths
from sysvisor_runc.errors import SysvisorError, reason
from sysvisor_runc.kernel import mount as m
from sysvisor_runc.kernel.prctl import capget
from sysvisor_runc.launch.userns import user_namespace
from sysvisor_runc.plan.namespaces import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sysvisor_runc.spec.types import IDMapping

OK, LIMITED, MISSING = "ok", "limited", "missing"
_MAPPING: Sequence[IDMapping] = [{"containerID": 0, "hostID": 0x78000000, "size": 65536}]
# Where root file systems and volumes are likely to lie.
_PLACES = ("/", "/tmp", "/run", "/home", "/var/lib/docker", "/var/lib/containers", "/var/lib/containerd", "/var/lib")
_CAP_SYS_ADMIN, _CAP_SYS_RESOURCE = 21, 24
# A Debian with systemd takes some twenty; the kernel's default is 128 for everybody together.
_INOTIFY_FEW, _INOTIFY_ENOUGH = 1024, 8192


class Finding:
    """Attributes:

    what: the thing looked at.
    status: "ok", "limited" (goes without, with less) or "missing" (system containers need it).
    found: what was seen.
    fix: what to do, where there is something to do.
    """

    __slots__ = ("fix", "found", "status", "what")

    def __init__(self, what: str, status: str, found: str, fix: str = "") -> None:
        self.what = what
        self.status = status
        self.found = found
        self.fix = fix


def examine() -> Iterator[Finding]:
    """Everything, the most important first; a look that fails unexpectedly is a finding as well."""
    for look in (
        _kernel, _privileges, _user_namespaces, _namespaces, _idmapped_mounts, _overlay, _cgroups, _systemd, _ids,
        _seccomp, _modules, _fuse, _criu, _rootless, _delegated, _files, _inotify,
    ):  # fmt: skip
        yield from _guarded(look)


def _guarded(look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except (OSError, SysvisorError) as error:
        text = reason(error) if isinstance(error, OSError) else str(error)
        what = look.__name__.strip("_").replace("_", " ")
        yield Finding(what, LIMITED, f"could not be looked at: {text}", "ask again as the host's root")


def _kernel() -> Iterator[Finding]:
    release = os.uname().release
    version = tuple(int(word) for word in release.split("-")[0].split(".")[:2])
    if version >= (5, 12):
        yield Finding("kernel", OK, release)
    else:
        yield Finding("kernel", MISSING, release, "ID-mapped mounts need Linux 5.12 or newer")


def _privileges() -> Iterator[Finding]:
    held = capget()[1]
    if os.geteuid() != 0 or not held >> _CAP_SYS_ADMIN & 1:
        yield Finding("privileges", LIMITED, f"uid {os.geteuid()} without CAP_SYS_ADMIN", "run as root for all of this")
    elif not _has_every_id():
        yield Finding(
            "privileges", LIMITED, "root of a user namespace", "device nodes and overlays need the host's root"
        )
    elif not held >> _CAP_SYS_RESOURCE & 1:
        found = "root without CAP_SYS_RESOURCE"
        yield Finding("privileges", LIMITED, found, "limits (ulimit) cannot be raised above the caller's")
    else:
        yield Finding("privileges", OK, "root")


def _user_namespaces() -> Iterator[Finding]:
    limit = _read("/proc/sys/user/max_user_namespaces")
    try:
        os.close(user_namespace(*_mappings()))
        yield Finding("user namespaces", OK, f"up to {limit}")
    except (OSError, SysvisorError) as error:
        fix = "see user_namespaces(7)"
        if limit == "0":
            fix = "sysctl -w user.max_user_namespaces=15000"
        elif os.geteuid() == 0 and isinstance(error, OSError) and error.errno == 1:  # EPERM
            fix = "ask outside: neither in a chroot nor behind the filter of a container engine can one be made"
        text = reason(error) if isinstance(error, OSError) else str(error)
        yield Finding("user namespaces", MISSING, text, fix)


def _has_every_id() -> bool:
    return _read("/proc/self/uid_map").split() == ["0", "0", "4294967295"]


def _mappings() -> tuple[Sequence[IDMapping], Sequence[IDMapping]]:
    """What can be mapped for a try: some ids for the host's root, and everybody may map themselves."""
    if os.geteuid() == 0 and _has_every_id():
        return _MAPPING, _MAPPING
    return (
        [{"containerID": 0, "hostID": os.geteuid(), "size": 1}],
        [{"containerID": 0, "hostID": os.getegid(), "size": 1}],
    )


def _namespaces() -> Iterator[Finding]:
    there = set(os.listdir("/proc/self/ns"))
    lacking = [kind for kind, (_, file) in NAMESPACES.items() if file not in there]
    needed = [kind for kind in lacking if kind not in ("time", "cgroup")]
    found = f"without {', '.join(lacking)}" if lacking else f"all {len(NAMESPACES)}"
    fix = "a kernel with CONFIG_NAMESPACES and all below it" if lacking else ""
    yield Finding("namespaces", MISSING if needed else LIMITED if lacking else OK, found, fix)


def _idmapped_mounts() -> Iterator[Finding]:
    if os.geteuid() != 0:
        return
    kinds = _file_systems()
    try:
        userns = user_namespace(*_mappings())
    except (OSError, SysvisorError):
        return  # which has been told
    try:
        for kind, path in kinds.items():
            problem = _try_idmap(path, userns)
            what = f"ID-mapped mounts: {kind}"
            if problem:
                fix = "keep root file systems and volumes elsewhere, or --uid-shift chown"
                yield Finding(what, LIMITED, f"{path}: {problem}", fix)
            else:
                yield Finding(what, OK, path)
    finally:
        os.close(userns)


def _file_systems() -> dict[str, str]:
    """The types of the file systems at the usual places, each with the first place that has it."""
    from sysvisor_runc.syscont.layers import octal

    mounted = {}
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            fields = os.fsdecode(line).split(" ")
            mounted[octal(fields[4])] = fields[fields.index("-", 6) + 1]
    found: dict[str, str] = {}
    for path in _PLACES:
        if not os.path.isdir(path):
            continue
        place = os.path.realpath(path)
        while place not in mounted:
            place = os.path.dirname(place)
        found.setdefault(mounted[place], path)
    return found


def _try_idmap(path: str, userns: int) -> str:
    try:
        fd = m.open_tree(m.AT_FDCWD, path, m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC)
        try:
            m.mount_setattr(fd, "", m.AT_EMPTY_PATH, attr_set=m.MOUNT_ATTR_IDMAP, userns_fd=userns)
        finally:
            os.close(fd)
    except OSError as error:
        return "not supported" if error.errno == 22 else reason(error)  # EINVAL
    return ""


def _overlay() -> Iterator[Finding]:
    """Really mount one of ID-mapped layers, in /var/lib if it can be written."""
    if os.geteuid() != 0:
        return
    import tempfile

    from sysvisor_runc.launch.overlay import make_overlay_tree
    from sysvisor_runc.plan.overlay import OverlayTree
    from sysvisor_runc.syscont.layers import Layers

    what = "overlays of ID-mapped layers"
    parent = "/var/lib" if os.access("/var/lib", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix=".sysvisor-doctor-", dir=parent) as top:
        for name in ("low", "up", "merged"):
            os.mkdir(f"{top}/{name}")
        layers = Layers([f"{top}/low"], upper=f"{top}/up", work=f"{top}/work")
        tree = OverlayTree(f"{top}/merged", layers, (0x78000000, 0x78000000), propagation=0)
        tree.uid_mappings, tree.gid_mappings = _mappings()
        tree.work = f"{top}/work"
        try:
            os.close(make_overlay_tree(tree))
            yield Finding(what, OK, f"in {os.path.dirname(top)}")
        except (OSError, SysvisorError) as error:
            if isinstance(error, OSError) and error.errno == 1:  # EPERM: no user namespace, which has been told
                return
            text = reason(error) if isinstance(error, OSError) else str(error).replace(top, "…")
            fix = "images of Docker, containerd and Podman need Linux 5.19, and overlayfs on a file system as above"
            yield Finding(what, LIMITED, text, fix)


def _cgroups() -> Iterator[Finding]:
    layout = detect()
    if layout.kind == "none":
        yield Finding("cgroups", MISSING, "no cgroup file system is mounted", "mount -t cgroup2 cgroup2 /sys/fs/cgroup")
        return
    names = [name for hierarchy in layout.v1 for name in hierarchy.controllers]
    names += _read("/sys/fs/cgroup/cgroup.controllers").split()
    wanted = [name for name in ("cpu", "memory", "pids") if name not in names]
    found = f"{layout.kind}: {' '.join(names)}"
    fix = f"limits of {', '.join(wanted)} cannot be set" if wanted else ""
    yield Finding("cgroups", LIMITED if wanted else OK, found, fix)


def _systemd() -> Iterator[Finding]:
    if not os.path.isdir("/run/systemd/system"):
        yield Finding("systemd cgroup driver", LIMITED, "systemd does not run here", "leave --systemd-cgroup out")
        return
    from importlib.util import find_spec

    if find_spec("jeepney") is None and not os.path.isdir("/usr/lib/python3/dist-packages/jeepney"):
        yield Finding("systemd cgroup driver", LIMITED, "no jeepney", "apt-get install python3-jeepney")
    else:
        yield Finding("systemd cgroup driver", OK, "systemd runs, jeepney is there")


def _ids() -> Iterator[Finding]:
    from sysvisor_runc.state import subid

    if os.geteuid() != 0:
        yield _own_ids()
        return
    total, taken = subid.usage()
    free = max(total - taken, 0)
    entry = f"{subid.USER}:{subid.DEFAULT_FIRST}:{64 * subid.SIZE}"
    fix = "" if free else f"a line such as `{entry}` in {subid.SUBUID} and {subid.SUBGID}"
    yield Finding("id ranges", OK if free else MISSING, f"{free} of {total} are free", fix)


def _own_ids() -> Finding:
    from sysvisor_runc.errors import StateError
    from sysvisor_runc.state.subid import ids_of_user

    try:
        uid, gid, size = ids_of_user(os.geteuid())
    except StateError as error:
        return Finding("id ranges", MISSING, str(error).partition(" (")[0], error.hint or "")
    return Finding("id ranges", OK, f"{size} of this user's own, uids from {uid}, gids from {gid}")


def _seccomp() -> Iterator[Finding]:
    from sysvisor_runc.kernel.libseccomp import seccomp_version

    try:
        yield Finding("seccomp", OK, "libseccomp " + ".".join(map(str, seccomp_version())))
    except (OSError, SysvisorError) as error:
        yield Finding("seccomp", LIMITED, str(error), "apt-get install libseccomp2")


def _modules() -> Iterator[Finding]:
    names = _read("/sys/kernel/security/lsm")
    yield Finding("security modules", OK, names or "none told (is securityfs mounted?)")


def _fuse() -> Iterator[Finding]:
    if os.path.exists("/dev/fuse") and "\tfuse\n" in _read("/proc/filesystems") + "\n":
        yield Finding("FUSE", OK, "/dev/fuse")
    else:
        yield Finding(
            "FUSE", LIMITED, "no /dev/fuse", "modprobe fuse; needed inside by fuse-overlayfs, outside by sysvisor-fs"
        )


def _criu() -> Iterator[Finding]:
    path = which("criu")
    if path:
        yield Finding("CRIU", OK, path)
    else:
        yield Finding("CRIU", LIMITED, "not installed", "needed for checkpoint and restore only: apt-get install criu")


def _rootless() -> Iterator[Finding]:
    lacking = [name for name in ("newuidmap", "newgidmap") if not which(name)]
    if lacking:
        yield Finding("rootless", LIMITED, f"no {', '.join(lacking)}", "apt-get install uidmap")
    else:
        yield Finding("rootless", OK, "newuidmap, newgidmap")


def _delegated() -> Iterator[Finding]:
    """Whether an ordinary user's containers can have cgroups, and so limits."""
    if os.geteuid() == 0:
        return
    layout = detect()
    private = f"{os.environ.get('XDG_RUNTIME_DIR') or '/nonexistent'}/systemd/private"
    own = container_paths(layout, None, "probe")
    if layout.kind == "v2" and os.access(private, os.W_OK):
        yield Finding("delegated cgroups", OK, "by this user's service manager, with --systemd-cgroup")
    elif own and all(os.access(os.path.dirname(path), os.W_OK) for path in own.values()):
        yield Finding("delegated cgroups", OK, os.path.dirname(next(iter(own.values()))))
    else:
        fix = "for limits: cgroup v2, and --systemd-cgroup from a login session of systemd"
        yield Finding("delegated cgroups", LIMITED, "none", fix)


def _files() -> Iterator[Finding]:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = "no limit" if hard == -1 else str(hard)
    few = -1 < hard < 4096
    yield Finding(
        "open files", LIMITED if few else OK, text, "ulimit -Hn 1048576, where the engine starts" if few else ""
    )


def _inotify() -> Iterator[Finding]:
    """What a container uses counts against its own root, the owner of its user namespace (kernel/ucount.c)."""
    limit = _read("/proc/sys/fs/inotify/max_user_instances")
    few = limit.isdecimal() and int(limit) < _INOTIFY_FEW
    fix = (
        f"a container full of services wants more: sysctl -w fs.inotify.max_user_instances={_INOTIFY_ENOUGH}"
        if few
        else ""
    )
    found = f"{limit or 'none told'} for each system container, and for all others together"
    yield Finding("inotify instances", LIMITED if few else OK, found, fix)


def which(name: str) -> str:
    for directory in (*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/sbin"):
        path = os.path.join(directory, name)
        if directory and os.access(path, os.X_OK):
            return path
    return ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip("\n ")
    except OSError:
        return ""

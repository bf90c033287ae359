"""What the conversion must know about the host, the root file system and the caller.

Plain values, gathered by the launch layer before `convert` runs; nothing in here looks at the machine. The functions
name what is to be looked up, so that the layer that may do I/O holds no policy. Imports nothing of ours at run time.
"""

from __future__ import annotations

from posixpath import normpath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Mount, Spec
    from sysvisor_runc.syscont.layers import Layers

# Directories whose presence in the rootfs decides whether the host's are shown there; see `HostFacts.rootfs_dirs`.
ROOTFS_DIRS = ("/lib", "/usr/src")

# Devices of every machine, as devices.txt of the kernel numbers them, that are safe in a user namespace.
MACHINE_DEVICES = {"/dev/fuse": (10, 229), "/dev/net/tun": (10, 200)}

SHIFT_SIZE = 65536  # ids per container: the kernel's "nobody" (65534) must be mapped


class PathFacts:
    """A host path: the rootfs, or the source of a bind mount."""

    __slots__ = ("device", "gid", "idmap", "layers", "magic", "submounts", "uid")

    def __init__(
        self,
        magic: int = 0,  # statfs type of the file system it is on
        uid: int = 0,  # its owner
        gid: int = 0,
        *,
        device: bool = False,  # it is a character or block device
        idmap: bool | None = None,  # an ID-mapped mount of it was seen to work, or not; None: nobody tried
        submounts: tuple[int, ...] = (),  # statfs types of what is mounted below it
        layers: Layers | None = None,  # of an overlay that is mounted right there
    ) -> None:
        self.magic = magic
        self.uid = uid
        self.gid = gid
        self.device = device
        self.idmap = idmap
        self.submounts = submounts
        self.layers = layers


class HostFacts:
    """All that `convert` may know. Each fact is described where it is passed in."""

    __slots__ = (
        "args0",
        "cap_names",
        "capabilities",
        "cgroup",
        "container_id",
        "container_uuid",
        "cpus",
        "credentials",
        "destinations",
        "filesystems",
        "fs_mountpoint",
        "host_paths",
        "id_range",
        "joined_ids",
        "kernel",
        "machine_devices",
        "may_mknod",
        "namespaces",
        "ns_ours",
        "ns_shared",
        "oom_score_adj",
        "os_release",
        "own_ids",
        "rlimits",
        "rootfs",
        "rootfs_dirs",
        "rootfs_path",
        "sources",
        "uid_shift",
    )

    def __init__(
        self,
        container_id: str,
        rootfs_path: str,  # absolute host path, symlinks resolved
        rootfs: PathFacts,
        *,
        kernel: tuple[int, int],  # kernel_version(uname -r)
        capabilities: int,  # effective set of the caller in the initial user namespace, a bit mask
        cap_names: tuple[str, ...],  # all capabilities that this kernel has, by bit number
        container_uuid: str = "",  # interface.container_uuid(…)
        oom_score_adj: int = 0,  # the caller's own, -1000..1000
        rlimits: dict[str, tuple[int, int]] | None = None,  # type → the caller's (soft, hard); -1: infinity
        id_range: tuple[int, int, int] | None = None,  # (uid, gid, size) allocated; None where not `needs_ids`
        own_ids: tuple[int, int] | None = None,  # (uid, gid) of an ordinary user: what the container's root is then
        joined_ids: tuple[int, int, int] | None = None,  # the same of a user namespace that the spec gives by path
        namespaces: frozenset[str] | None = None,  # OCI types that this kernel has; None: all
        ns_shared: dict[str, bool] | None = None,  # for paths_to_probe: it is the caller's own (same st_dev, st_ino)
        ns_ours: dict[str, bool] | None = None,  # likewise: the caller's user namespace owns it
        sources: dict[str, PathFacts] | None = None,  # for sources_to_probe and host_paths
        destinations: dict[str, str] | None = None,  # for destinations_to_probe: path in the rootfs, symlinks followed
        args0: str | None = None,  # process.args[0] in the rootfs, symlinks followed; None: not there
        host_paths: frozenset[str] = frozenset(),  # those of host_candidates that are directories
        rootfs_dirs: frozenset[str] = frozenset(ROOTFS_DIRS),  # those of ROOTFS_DIRS that the rootfs has
        filesystems: frozenset[str] = frozenset(),  # names in /proc/filesystems
        cgroup: str = "v2",  # or "v1", "hybrid", or "none" where no cgroup file system is mounted
        fs_mountpoint: str | None = None,  # where sysvisor-fs serves; None without the daemon
        os_release: str = "",  # text of the host's os-release
        credentials: dict[str, bytes] | None = None,  # name → data
        may_mknod: bool = False,  # the caller may make device nodes: CAP_MKNOD in the initial user namespace
        machine_devices: dict[str, tuple[int, int]] | None = None,  # those of MACHINE_DEVICES that the host has
        uid_shift: str = "idmap",  # what the command line asks for: "idmap", "chown" or "none"
    ) -> None:
        self.container_id = container_id
        self.rootfs_path, self.rootfs = rootfs_path, rootfs
        self.kernel, self.args0 = kernel, args0
        self.capabilities, self.cap_names = capabilities, cap_names
        self.container_uuid = container_uuid
        self.oom_score_adj = oom_score_adj
        self.rlimits = rlimits or {}
        self.id_range, self.own_ids, self.joined_ids = id_range, own_ids, joined_ids
        self.namespaces, self.ns_shared, self.ns_ours = namespaces, ns_shared or {}, ns_ours or {}
        self.sources, self.destinations = sources or {}, destinations or {}
        self.host_paths, self.rootfs_dirs = host_paths, rootfs_dirs
        self.filesystems = filesystems
        self.cgroup, self.fs_mountpoint = cgroup, fs_mountpoint
        self.os_release = os_release
        self.credentials = credentials or {}
        self.may_mknod, self.machine_devices = may_mknod, machine_devices or {}
        self.uid_shift = uid_shift
        self.cpus: tuple[int, ...] = ()  # those that the caller may use


def kernel_version(release: str) -> tuple[int, int]:
    """Leading numbers of `uname -r`: "6.18.44-fc" → (6, 18)."""
    major, minor = release.split(".", 2)[:2]
    return int(major), int(minor.partition("-")[0])


def inside(path: str) -> str:
    """A destination as it is compared here: absolute, without `.`, `..` and doubled slashes."""
    return normpath("/" + path.lstrip("/"))


def is_below(path: str, parent: str) -> bool:
    """Whether path lies strictly below parent; both as `inside` returns them."""
    return path != parent and path.startswith(parent if parent == "/" else parent + "/")


def is_bind(mount: Mount) -> bool:
    options = mount.get("options", ())
    return mount.get("type") == "bind" or "bind" in options or "rbind" in options


def paths_to_probe(spec: Spec) -> list[str]:
    """The namespace paths to compare with the caller's own, for `HostFacts.ns_shared`."""
    return [path for ns in spec.get("linux", {}).get("namespaces", ()) if (path := ns.get("path"))]


def sources_to_probe(spec: Spec) -> list[str]:
    """The bind sources that `HostFacts.sources` is to describe."""
    return [mount.get("source", "") for mount in spec.get("mounts", ()) if is_bind(mount)]


def destinations_to_probe(spec: Spec) -> list[str]:
    """The mount destinations whose symlinks `HostFacts.destinations` is to resolve inside the rootfs."""
    return [mount["destination"] for mount in spec.get("mounts", ())]


def host_candidates(release: str) -> tuple[str, ...]:
    """Host directories that are shown to the container where both sides have a place for them.

    Kernel modules, and the headers as Fedora, Ubuntu and Debian name them (whose parts link to each other).
    """
    abi = release.rpartition("-")[0] or release
    headers = "/usr/src/linux-headers-"
    return (
        f"/lib/modules/{release}",
        f"/usr/src/kernels/{release}",
        headers + release,
        headers + abi,
        f"{headers}{abi}-common",
        "/usr/src/linux-kbuild-" + ".".join(release.partition("-")[0].split(".")[:2]),
    )

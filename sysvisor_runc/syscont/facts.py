"""What the conversion must know about the host, the root file system and the caller.

Plain values, gathered by the launch layer before `convert` runs; nothing in here looks at the machine. The functions
name what is to be looked up, so that the layer that may do I/O holds no policy. Imports nothing of ours at run time.
"""

from __future__ import annotations

from posixpath import normpath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Mount, Spec

# Directories of the rootfs whose presence decides something; see `RootfsFacts.dirs`.
ROOTFS_DIRS = ("/lib", "/usr/src")

SHIFT_SIZE = 65536  # ids per container: the kernel's "nobody" (65534) must be mapped


class RootfsFacts:
    """The directory that becomes `/`.

    Attributes:
        path: absolute host path, symlinks resolved.
        magic: `statfs` type of the file system that it is on.
        uid, gid: owner of the directory itself.
        idmap: whether an ID-mapped mount of it was seen to work; None where nobody tried.
        dirs: those of ROOTFS_DIRS that exist in it (resolved inside it).
    """

    __slots__ = ("dirs", "gid", "idmap", "magic", "path", "uid")

    def __init__(
        self,
        path: str,
        magic: int = 0,
        uid: int = 0,
        gid: int = 0,
        *,
        idmap: bool | None = None,
        dirs: frozenset[str] = frozenset(ROOTFS_DIRS),
    ) -> None:
        self.path = path
        self.magic = magic
        self.uid = uid
        self.gid = gid
        self.idmap = idmap
        self.dirs = dirs


class SourceFacts:
    """The source of a bind mount.

    Attributes:
        magic: `statfs` type; uid, gid: owner.
        device: it is a character or block device.
        idmap: whether an ID-mapped mount of it was seen to work; None where nobody tried.
        submounts: `statfs` types of what is mounted below it.
    """

    __slots__ = ("device", "gid", "idmap", "magic", "submounts", "uid")

    def __init__(
        self,
        magic: int = 0,
        uid: int = 0,
        gid: int = 0,
        *,
        device: bool = False,
        idmap: bool | None = None,
        submounts: tuple[int, ...] = (),
    ) -> None:
        self.magic = magic
        self.uid = uid
        self.gid = gid
        self.device = device
        self.idmap = idmap
        self.submounts = submounts


class HostFacts:
    """Everything else.

    Attributes:
        container_id, container_uuid: the latter from `interface.container_uuid`.
        release: `uname -r`; `kernel` is its leading numbers.
        euid, capabilities: the caller's; capabilities is its effective set as a bit mask.
        cap_names: names of all capabilities that the kernel has, by bit number.
        oom_score_adj: the caller's own, in -1000..1000.
        rlimits: type → (soft, hard) of the caller, for the types that the spec names; -1 is infinity.
        id_range: (uid, gid, size) allocated for this container; None where `needs_ids` said no.
        joined_ids: (uid, gid, size) of the user namespace that the spec gives by path.
        namespaces: OCI types that this kernel has.
        ns_shared: namespace path → it is the caller's own (same st_dev and st_ino); see `paths_to_probe`.
        rootfs: the root directory.
        sources: bind source → facts, for `sources_to_probe` and the directories in `host_paths`.
        destinations: mount destination → path inside the rootfs with its symlinks followed.
        args0: what `process.args[0]` is inside the rootfs once symlinks are followed; None where it is not there.
        host_paths: those of `host_candidates` that exist as directories.
        filesystems: names in /proc/filesystems.
        cgroup: "v1", "v2", "hybrid", or "none" where no cgroup file system is mounted.
        fs_mountpoint: where sysvisor-fs serves; None without the daemon.
        os_release: text of the host's os-release.
        credentials: name → data, for CREDENTIALS_DIRECTORY.
    """

    __slots__ = (
        "args0",
        "cap_names",
        "capabilities",
        "cgroup",
        "container_id",
        "container_uuid",
        "credentials",
        "destinations",
        "euid",
        "filesystems",
        "fs_mountpoint",
        "host_paths",
        "id_range",
        "joined_ids",
        "kernel",
        "namespaces",
        "ns_shared",
        "oom_score_adj",
        "os_release",
        "release",
        "rlimits",
        "rootfs",
        "sources",
    )

    def __init__(
        self,
        container_id: str,
        rootfs: RootfsFacts,
        *,
        release: str,
        capabilities: int,
        cap_names: tuple[str, ...],
        container_uuid: str = "",
        euid: int = 0,
        oom_score_adj: int = 0,
        rlimits: dict[str, tuple[int, int]] | None = None,
        id_range: tuple[int, int, int] | None = None,
        joined_ids: tuple[int, int, int] | None = None,
        namespaces: frozenset[str] = frozenset(("mount", "uts", "ipc", "pid", "network", "user", "cgroup", "time")),
        ns_shared: dict[str, bool] | None = None,
        sources: dict[str, SourceFacts] | None = None,
        destinations: dict[str, str] | None = None,
        args0: str | None = None,
        host_paths: frozenset[str] = frozenset(),
        filesystems: frozenset[str] = frozenset(),
        cgroup: str = "v2",
        fs_mountpoint: str | None = None,
        os_release: str = "",
        credentials: dict[str, bytes] | None = None,
    ) -> None:
        self.container_id = container_id
        self.container_uuid = container_uuid
        self.release = release
        self.kernel = kernel_version(release)
        self.euid = euid
        self.capabilities = capabilities
        self.cap_names = cap_names
        self.oom_score_adj = oom_score_adj
        self.rlimits = rlimits or {}
        self.id_range = id_range
        self.joined_ids = joined_ids
        self.namespaces = namespaces
        self.ns_shared = ns_shared or {}
        self.rootfs = rootfs
        self.sources = sources or {}
        self.destinations = destinations or {}
        self.args0 = args0
        self.host_paths = host_paths
        self.filesystems = filesystems
        self.cgroup = cgroup
        self.fs_mountpoint = fs_mountpoint
        self.os_release = os_release
        self.credentials = credentials or {}

    def may(self, capability: int) -> bool:
        """Whether the caller holds a capability, by its bit number."""
        return bool(self.capabilities >> capability & 1)


def kernel_version(release: str) -> tuple[int, int]:
    """Leading numbers of `uname -r`: "6.18.44-fc" → (6, 18)."""
    numbers = []
    for part in release.split(".")[:2]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        numbers.append(int(digits) if digits else 0)
    return numbers[0], numbers[1] if len(numbers) > 1 else 0


def inside(path: str) -> str:
    """A destination as it is compared here: absolute, without `.`, `..` and doubled slashes. Syntax only."""
    return normpath("/" + path.lstrip("/"))


def is_below(path: str, parent: str) -> bool:
    """Whether path lies strictly below parent; both as `inside` returns them."""
    return path != parent and path.startswith(parent if parent == "/" else parent + "/")


def is_bind(mount: Mount) -> bool:
    options = mount.get("options", ())
    return mount.get("type") == "bind" or "bind" in options or "rbind" in options


def paths_to_probe(spec: Spec) -> list[str]:
    """The namespace paths to compare with the caller's own namespaces, for `HostFacts.ns_shared`."""
    return [path for ns in spec.get("linux", {}).get("namespaces", ()) if (path := ns.get("path"))]


def sources_to_probe(spec: Spec) -> list[str]:
    """The bind sources that `HostFacts.sources` is to describe."""
    return [mount.get("source", "") for mount in spec.get("mounts", ()) if is_bind(mount) and mount.get("source")]


def destinations_to_probe(spec: Spec) -> list[str]:
    """The mount destinations whose symlinks `HostFacts.destinations` is to resolve inside the rootfs."""
    return [mount["destination"] for mount in spec.get("mounts", ())]


def host_candidates(release: str) -> tuple[str, ...]:
    """Host directories that are shown to the container where both sides have a place for them.

    Kernel modules, and the headers as Debian (with their common and kbuild parts, which the others link into),
    Ubuntu and Fedora name them.
    """
    version, _, flavour = release.partition("-")
    major = ".".join(version.split(".")[:2])
    candidates = [f"/lib/modules/{release}", f"/usr/src/linux-headers-{release}", f"/usr/src/kernels/{release}"]
    if flavour:
        abi = release.rpartition("-")[0]
        candidates += [f"/usr/src/linux-headers-{abi}", f"/usr/src/linux-headers-{abi}-common"]
    candidates.append(f"/usr/src/linux-kbuild-{major}")
    return tuple(candidates)

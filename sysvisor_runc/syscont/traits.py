"""What the launch must do that config.json cannot say. Filled by the steps, then only read."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.syscont.layers import Layers
    from sysvisor_runc.syscont.settings import Settings


class Traits:
    """The system container beside its spec."""

    __slots__ = (
        "bind_layers",
        "chown_rootfs",
        "clear_apparmor",
        "credentials",
        "credentials_dir",
        "deferred_mounts",
        "delegate_cgroup",
        "foreign",
        "fs_mounts",
        "fs_root",
        "hidden_instances",
        "host_nodes",
        "ids",
        "init_kind",
        "links",
        "masked_paths",
        "oom_score_adj_min",
        "readonly_paths",
        "rootfs_idmap",
        "rootfs_layers",
        "run_host_files",
        "run_host_nodes",
        "settings",
        "stop_signal",
        "warnings",
    )

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # "systemd", "init" (another init system) or "program".
        self.init_kind = "program"
        # What asks init for an orderly shutdown, where SIGTERM does not.
        self.stop_signal: int | None = None
        # Host (uid, gid, size) of the container's 0; None where a joined user namespace hides it.
        self.ids: tuple[int, int, int] | None = None
        # Types of the namespaces that are joined beside a user namespace which does not own them: the host does.
        self.foreign: frozenset[str] = frozenset()
        # How the rootfs gets its owners; none of these where they fit already. Layers: it is mounted anew from them.
        self.rootfs_idmap = False
        self.rootfs_layers: Layers | None = None
        self.chown_rootfs = False
        # Source of a read-only bind → its layers, likewise mounted anew.
        self.bind_layers: dict[str, Layers] = {}
        # The container owns a cgroup below its limits.
        self.delegate_cgroup = False
        # The mounts hold clean procfs and sysfs instances for nested mounts.
        self.hidden_instances = False
        # The host makes /dev, with real nodes in it.
        self.host_nodes = False
        # No AppArmor profile, in exec too.
        self.clear_apparmor = False
        # To be written to init's oom_score_adj before the spec's value, by whoever has CAP_SYS_RESOURCE: processes
        # inside may then go down to it again. None where the caller may not.
        self.oom_score_adj_min: int | None = None
        # Absolute path → text, and → "reg", "dir", "fifo", "sock" or "chr" (0:0) of mode 000. To be made after the
        # mounts, before paths become read-only.
        self.run_host_files: dict[str, str] = {}
        self.run_host_nodes: dict[str, str] = {}
        # Path → target of a symbolic link, to be made likewise.
        self.links: dict[str, str] = {}
        # Name → data, to be written likewise, mode 0400, to a directory that the mounts hold.
        self.credentials: dict[str, bytes] = {}
        self.credentials_dir: str | None = None
        # Where sysvisor-fs has the container's tree, the destinations that it serves, and those of the spec's mounts
        # below them, which must wait until the container is registered there.
        self.fs_root = ""
        self.fs_mounts: tuple[str, ...] = ()
        self.deferred_mounts: tuple[str, ...] = ()
        # What is left of the spec's lists, for sysvisor-fs to repeat on inner mounts of /proc and /sys.
        self.masked_paths: tuple[str, ...] = ()
        self.readonly_paths: tuple[str, ...] = ()
        # For the log, one line each.
        self.warnings: list[str] = []

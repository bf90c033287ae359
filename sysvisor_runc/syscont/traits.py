"""What the launch must do that config.json cannot say, and the settings that a container's own configuration carries.

Imports errors and nothing else of ours at run time.
"""

from __future__ import annotations

from sysvisor_runc.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Process, Spec

ENV_PREFIX = "SYSVISOR_"
ANNOTATION_PREFIX = "org.sysvisor."

# Accepted, kept for sysvisor-fs, and without effect on the conversion.
_RESERVED = ("IGNORE_SYSFS_CHOWN", "ALLOW_TRUSTED_XATTR")


class Settings:
    """Wishes of whoever wrote the configuration, from `SYSVISOR_*` variables and `org.sysvisor.*` annotations.

    Attributes:
        syscont_mode: False asks for a plain OCI container.
        honor_caps: capabilities stay exactly as the spec lists them.
        chown_rootfs: the rootfs may be chowned where it cannot be ID-mapped.
        skip_uid_shift: destinations whose binds are never ID-mapped.
    """

    __slots__ = ("chown_rootfs", "honor_caps", "skip_uid_shift", "syscont_mode")

    def __init__(self) -> None:
        self.syscont_mode = True
        self.honor_caps = False
        self.chown_rootfs = False
        self.skip_uid_shift: frozenset[str] = frozenset()


class Traits:
    """The system container beside its spec. Filled by the steps, then only read.

    Attributes:
        settings: what the configuration asked for.
        init_kind: "systemd", "init" (another init system) or "program".
        stop_signal: number of the signal that asks init for an orderly shutdown; None: SIGTERM, as for any program.
        ids: (uid, gid, size) on the host that the container's 0 maps to; None where a joined namespace hides it.
        rootfs_idmap, chown_rootfs: how the rootfs gets its owners; both False where they fit already.
        delegate_cgroup: the container owns a cgroup below its limits.
        hidden_instances: the mounts hold clean procfs and sysfs instances for nested mounts.
        clear_apparmor: no AppArmor profile, in exec too.
        oom_score_adj_min: value to write to init's oom_score_adj first, so that processes inside may go down to it
            again; None where the caller may not.
        run_host_files: absolute path → text; run_host_nodes: absolute path → "reg", "dir", "fifo", "sock" or "chr"
            (0:0), all of mode 000. Made after the mounts, before read-only paths are applied.
        credentials: name → data; credentials_dir: where they go, files 0400, or None.
        fs_mounts: destinations served by sysvisor-fs; deferred_mounts: destinations of the spec's mounts below those,
            made once the container is registered there.
        masked_paths, readonly_paths: what is left of the spec's lists, for sysvisor-fs to repeat on inner mounts.
        warnings: for the log, one line each.
    """

    __slots__ = (
        "chown_rootfs",
        "clear_apparmor",
        "credentials",
        "credentials_dir",
        "deferred_mounts",
        "delegate_cgroup",
        "fs_mounts",
        "hidden_instances",
        "ids",
        "init_kind",
        "masked_paths",
        "oom_score_adj_min",
        "readonly_paths",
        "rootfs_idmap",
        "run_host_files",
        "run_host_nodes",
        "settings",
        "stop_signal",
        "warnings",
    )

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.init_kind = "program"
        self.stop_signal: int | None = None
        self.ids: tuple[int, int, int] | None = None
        self.rootfs_idmap = False
        self.chown_rootfs = False
        self.delegate_cgroup = False
        self.hidden_instances = False
        self.clear_apparmor = False
        self.oom_score_adj_min: int | None = None
        self.run_host_files: dict[str, str] = {}
        self.run_host_nodes: dict[str, str] = {}
        self.credentials: dict[str, bytes] = {}
        self.credentials_dir: str | None = None
        self.fs_mounts: tuple[str, ...] = ()
        self.deferred_mounts: tuple[str, ...] = ()
        self.masked_paths: tuple[str, ...] = ()
        self.readonly_paths: tuple[str, ...] = ()
        self.warnings: list[str] = []


def read_settings(spec: Spec, process: Process | None = None) -> Settings:
    """The settings of a container, or of a process that joins it (its own variables then win).

    An annotation wins over a variable: the caller writes the one, an image may bring the other.
    Raises SpecError for an unknown `SYSVISOR_*` variable or a value that is neither true nor false.
    """
    settings = Settings()
    for path, given in (("process.env", spec.get("process")), ("process.env", process)):
        for index, entry in enumerate(given.get("env", ()) if given else ()):
            if entry.startswith(ENV_PREFIX):
                name, _, value = entry[len(ENV_PREFIX) :].partition("=")
                _set(settings, f"{path}[{index}]", name, value, strict=True)
    for key, value in spec.get("annotations", {}).items():
        if key.startswith(ANNOTATION_PREFIX):
            name = key[len(ANNOTATION_PREFIX) :].upper().replace("-", "_")
            # Other parts of the runtime have annotations of their own, so an unknown one is no mistake here.
            _set(settings, f"annotations[{key!r}]", name, value, strict=False)
    return settings


def is_disabled(spec: Spec, env: dict[str, str]) -> bool:
    """Whether this container is to be made exactly as its spec says. `env` is the runtime's own environment.

    Raises SpecError as `read_settings` does.
    """
    own = env.get(ENV_PREFIX + "SYSCONT_MODE")
    if own is not None and not _truth("environment variable SYSVISOR_SYSCONT_MODE", own):
        return True
    return not read_settings(spec).syscont_mode


def _set(settings: Settings, path: str, name: str, value: str, *, strict: bool) -> None:
    if name == "SYSCONT_MODE":
        settings.syscont_mode = _truth(path, value)
    elif name == "HONOR_CAPS":
        settings.honor_caps = _truth(path, value)
    elif name == "CHOWN_ROOTFS":
        settings.chown_rootfs = _truth(path, value)
    elif name == "SKIP_UID_SHIFT":
        settings.skip_uid_shift = _destinations(path, value)
    elif strict and name not in _RESERVED:
        raise SpecError(path, f"unknown setting {ENV_PREFIX + name!r}", hint="names that start with SYSVISOR_ are ours")


def _truth(path: str, value: str) -> bool:
    word = value.lower()
    if word not in ("true", "false"):
        raise SpecError(path, f"expected TRUE or FALSE, not {value!r}")
    return word == "true"


def _destinations(path: str, value: str) -> frozenset[str]:
    destinations = value.split(",")
    for destination in destinations:
        if not destination.startswith("/") or destination != destination.strip():
            raise SpecError(path, f"expected absolute paths separated by commas, not {value!r}")
    return frozenset(destination.rstrip("/") or "/" for destination in destinations)

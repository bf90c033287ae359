"""Masked and read-only paths: those that would break a system container are dropped.

What they protect, the user namespace protects: the kernel checks access to them against the initial user namespace.
"""

from __future__ import annotations

from sysvisor_runc.syscont.facts import inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Spec
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Traits

# A /dev/null in place of kcore, kallsyms or kmsg confuses programs that find an empty file where they expect EPERM.
_UNMASKED = frozenset(("/proc", "/proc/sys", "/proc/kcore", "/proc/kallsyms", "/proc/kmsg", "/sys/fs/cgroup"))
_WRITABLE = frozenset(("/proc", "/proc/sys", "/sys/fs/cgroup"))
_SYSTEMD = frozenset(("/run", "/run/lock", "/tmp", "/sys/kernel"))


def convert_paths(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Drop those paths from the spec's lists and remember what is left, for inner mounts of /proc and /sys."""
    linux = spec.get("linux", {})
    extra = _SYSTEMD if traits.init_kind == "systemd" else frozenset[str]()
    masked = [path for path in linux.get("maskedPaths", ()) if inside(path) not in _UNMASKED | extra]
    readonly = [path for path in linux.get("readonlyPaths", ()) if inside(path) not in _WRITABLE | extra]
    traits.masked_paths = tuple(masked)
    traits.readonly_paths = tuple(readonly)
    # The interface directory becomes read-only here, after its files have been written.
    readonly += sealed_directories(traits)
    return {**spec, "linux": {**linux, "maskedPaths": masked, "readonlyPaths": readonly}}


def sealed_directories(traits: Traits) -> list[str]:
    """Directories that the launch fills and the container only reads."""
    sealed = [] if traits.credentials_dir is None else [traits.credentials_dir]
    return [*sealed, "/run/host"] if traits.run_host_files else sealed

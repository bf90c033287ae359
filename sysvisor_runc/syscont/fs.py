"""The mounts that sysvisor-fs serves, prepared as data. Without the daemon the plain /proc and /sys stay."""

from __future__ import annotations

from sysvisor_runc.syscont.facts import inside, is_below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Mount, Spec
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Traits

# Served per container under `<mountpoint>/<container id>`.
FS_PATHS = (
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys",
    "/proc/uptime",
    "/sys/devices/virtual",
    "/sys/kernel",
    "/sys/module/nf_conntrack/parameters",
)


def convert_fs(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Bind the served files; a mount of the spec at the same place wins, one below is put off until registration."""
    if facts.fs_mountpoint is None:
        return spec
    root = f"{facts.fs_mountpoint.rstrip('/')}/{facts.container_id}"
    mounts = spec.get("mounts", [])
    taken = [inside(mount["destination"]) for mount in mounts]
    served = tuple(path for path in FS_PATHS if path not in taken)
    binds: list[Mount] = [
        {"destination": path, "type": "bind", "source": root + path, "options": ["rbind", "rprivate"]}
        for path in served
    ]
    traits.fs_mounts = served
    traits.deferred_mounts = tuple(path for path in taken if any(is_below(path, parent) for parent in served))
    return {**spec, "mounts": mounts + binds}

"""The mounts that sysvisor-fs serves, prepared as data. Loaded only with the daemon; without it /proc and /sys stay."""

from __future__ import annotations

from sysvisor_runc.syscont.facts import inside, is_below
from sysvisor_runc.syscont.mounts import mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Spec
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Traits

# Served per container under `<mountpoint>/<container id>`.
FS_PATHS = (
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/pressure",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys",
    "/proc/uptime",
    "/sys/devices/system/cpu",
    "/sys/devices/virtual",
    "/sys/kernel",
    "/sys/module/nf_conntrack/parameters",
)


def convert_fs(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Bind the served files; a mount of the spec at the same place wins, one below is put off until registration."""
    root = f"{(facts.fs_mountpoint or '').rstrip('/')}/{facts.container_id}"
    mounts = spec.get("mounts", [])
    taken = [inside(entry["destination"]) for entry in mounts]
    served = tuple(path for path in FS_PATHS if path not in taken)
    traits.fs_root = root
    traits.fs_mounts = served
    traits.deferred_mounts = tuple(path for path in taken if any(is_below(path, parent) for parent in served))
    # /sys follows the rootfs; /proc/sys is the container's own, as its cgroups are.
    readonly = ",ro" if spec["root"].get("readonly") else ""
    added = [
        mount(f"{path} bind {root}{path} rbind,rprivate{readonly if path.startswith('/sys/') else ''}")
        for path in served
    ]
    return {**spec, "mounts": mounts + added}

"""What is read-only: the root file system where the spec says so, and /sys. Loaded only for that."""

from __future__ import annotations

from sysvisor_runc.syscont.facts import inside
from sysvisor_runc.syscont.mounts import mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Mount, Spec
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Traits

_WRITABLE = (
    "/run tmpfs rw,rprivate,noexec,nosuid,nodev,mode=755,size=64m",
    "/tmp tmpfs rw,rprivate,noexec,nosuid,nodev,mode=1777,size=64m",
)


def convert_readonly(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Give it a writable `/run` and `/tmp`; `/sys` follows the rootfs, the cgroup mount does not.

    `root.readonly` speaks of the root file system: a delegated cgroup is no part of it and stays usable.
    """
    mounts = with_readonly_sys(spec.get("mounts", []))
    taken = {inside(entry["destination"]) for entry in mounts}
    mounts += [entry for entry in map(mount, _WRITABLE) if entry["destination"] not in taken]
    return {**spec, "mounts": mounts}


def with_readonly_sys(mounts: list[Mount]) -> list[Mount]:
    """The same mounts with `/sys` read-only.

    As a flag of the mount, never of the superblock: all sysfs mounts of a network namespace share one superblock, and
    a read-only one makes each later `mount -t sysfs` inside fail with EPERM (mount_too_revealing, fs/namespace.c).
    """
    return [
        {**entry, "options": [*entry["options"], "ro"]}
        if inside(entry["destination"]) == "/sys" and "ro" not in entry["options"]
        else entry
        for entry in mounts
    ]

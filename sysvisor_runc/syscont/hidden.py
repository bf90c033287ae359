"""Clean procfs and sysfs instances, so that nested user namespaces may mount their own.

The kernel lets a user namespace mount procfs or sysfs only where one is already fully visible in its mount namespace
(mount_too_revealing, fs/namespace.c). Masked paths are mounts over /proc and /sys; copied into a nested mount
namespace they are locked, and then `unshare -Urpf --mount-proc`, bubblewrap and rootless Podman get EPERM. Measured on
Linux 6.18: one instance with nothing mounted on it cures that, wherever it is and whoever may reach it. It must be
writable in mount *and superblock*, and keep the default access-time mode, which nested mounts are compared with.
"""

from __future__ import annotations

from sysvisor_runc.syscont.mounts import mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Spec
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Traits

# No mode bits on the tmpfs above them: masked paths stay masked for all but the container's root, who could mount a
# fresh procfs anyway.
_MOUNTS = (
    "/dev/.sysvisor tmpfs nosuid,noexec,nodev,mode=000,size=4k,nr_inodes=8",
    "/dev/.sysvisor/proc proc nosuid,noexec,nodev",
    "/dev/.sysvisor/sys sysfs nosuid,noexec,nodev",
)


def convert_hidden(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    traits.hidden_instances = True
    return {**spec, "mounts": [*spec.get("mounts", ()), *map(mount, _MOUNTS)]}

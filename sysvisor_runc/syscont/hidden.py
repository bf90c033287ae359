"""Clean procfs and sysfs instances, so that nested user namespaces may mount their own.

The kernel lets a user namespace mount procfs or sysfs only where one is already fully visible in its mount namespace
(mount_too_revealing, fs/namespace.c). Masked paths are mounts over /proc and /sys; copied into a nested mount
namespace they are locked, and then `unshare -Urpf --mount-proc`, bubblewrap and rootless Podman get EPERM. Measured on
Linux 6.18: one instance with nothing mounted on it cures that, wherever it is and whoever may reach it. It must be
writable in mount *and superblock*, and keep the default access-time mode, which nested mounts are compared with.
"""

from __future__ import annotations

from sysvisor_runc.syscont.mounts import fresh

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Mount, Spec
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Traits

HIDDEN = "/dev/.sysvisor"

# No mode bits on the tmpfs above them: masked paths stay masked for all but the container's root, who could mount a
# fresh procfs anyway.
_MOUNTS: tuple[Mount, ...] = (
    {
        "destination": HIDDEN,
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "noexec", "nodev", "mode=000", "size=4k", "nr_inodes=8"],
    },
    {"destination": f"{HIDDEN}/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": f"{HIDDEN}/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev"]},
)


def convert_hidden(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    traits.hidden_instances = True
    return {**spec, "mounts": [*spec.get("mounts", ()), *fresh(_MOUNTS)]}

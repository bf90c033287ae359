"""What systemd wants to find at boot. Loaded only for it."""

from __future__ import annotations

from sysvisor_runc.syscont.facts import inside
from sysvisor_runc.syscont.mounts import mount
from sysvisor_runc.syscont.readonly import with_readonly_sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Spec
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Traits

_RUN = "/run tmpfs rw,rprivate,nosuid,nodev,mode=755,size=20%,nr_inodes=800k"
_LOCK = "/run/lock tmpfs rw,rprivate,noexec,nosuid,nodev,mode=1777,size=5m"
_UNITS = "/run/systemd/system"
# What no user namespace may do, yet root's capabilities make systemd try: load modules, mount debugfs and its like,
# read the audit log. Units of the administrator's own in /etc still win over a mask in /run (systemd.unit(5)).
_MASKED = (
    "kmod-static-nodes.service",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-journald-audit.socket",
    "systemd-modules-load.service",
)
_TMP = "/tmp tmpfs rw,rprivate,nosuid,nodev,mode=1777,size=50%,nr_inodes=1m"


def convert_systemd(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Give systemd its `/run`, `/run/lock` and `/tmp`, and keep it from managing devices and the kernel.

    A read-only /sys is how systemd, udevd, networkd and logind learn that devices are not theirs
    (ConditionPathIsReadWrite=/sys). /proc/sys stays writable, as all the namespaces that it speaks of are the
    container's own.
    """
    mounts = with_readonly_sys(spec.get("mounts", []))
    taken = {inside(entry["destination"]): entry.get("type") for entry in mounts}
    for line in (_RUN, _LOCK, _TMP):
        entry = mount(line)
        # A mount of the user's own stays, whatever its type: systemd takes any file system there. In a /run that keeps
        # its files, a mount at /run/lock would hide them.
        if entry["destination"] in taken or (line is _LOCK and taken.get("/run", "tmpfs") != "tmpfs"):
            continue
        mounts.append(entry)
    if taken.get("/run", "tmpfs") == "tmpfs":
        traits.links |= {f"{_UNITS}/{unit}": "/dev/null" for unit in _MASKED}
    return {**spec, "mounts": mounts}

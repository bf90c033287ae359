"""Which init system a container runs, and what systemd wants to find at boot."""

from __future__ import annotations

from sysvisor_runc.syscont.facts import inside
from sysvisor_runc.syscont.mounts import with_readonly_sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Mount, Spec
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Traits

_SIGUSR2 = 12
_SIGRTMIN_PLUS_3 = 37  # glibc's and musl's SIGRTMIN are 34 and 35; systemd's API means glibc's

# Programs that are init systems by name. Mere reapers (tini, dumb-init, catatonit, docker-init) are programs.
_INITS = frozenset(
    ("init", "linuxrc", "openrc-init", "runit-init", "runit", "s6-svscan", "s6-linux-init", "sysvinit", "dinit")
)

_RUN = ["rw", "rprivate", "nosuid", "nodev", "mode=755", "size=20%", "nr_inodes=800k"]
_LOCK = ["rw", "rprivate", "noexec", "nosuid", "nodev", "mode=1777", "size=5m"]
_TMP = ["rw", "rprivate", "nosuid", "nodev", "mode=1777", "size=50%", "nr_inodes=1m"]


def init_kind(arg0: str, resolved: str | None) -> str:
    """One of "systemd", "init", "program", from `process.args[0]` and what that is once symlinks are followed.

    `/sbin/init` alone says nothing: it may be a link to `../lib/systemd/systemd`, to busybox, or sysvinit itself; and
    systemd may be started as `/lib/systemd/systemd` or by a name of the user's own that links there.
    """
    target = resolved or arg0
    # A multi-call binary is what it is called as: busybox is an init under the name `init`, but not under `sh`.
    called, real = arg0.rpartition("/")[2], target.rpartition("/")[2]
    if real == "systemd":
        return "systemd"
    return "init" if called in _INITS or real in _INITS else "program"


def convert_init(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Note the init system and how it is asked to shut down; give systemd its `/run`, `/run/lock`, `/tmp`."""
    args = spec["process"]["args"]
    traits.init_kind = init_kind(args[0], facts.args0) if args else "program"
    if traits.init_kind == "init" and (facts.args0 or "").endswith("/busybox"):
        traits.stop_signal = _SIGUSR2  # busybox' init takes SIGTERM for reboot, SIGUSR2 for poweroff
    if traits.init_kind != "systemd":
        return spec
    traits.stop_signal = _SIGRTMIN_PLUS_3
    # A read-only /sys is how systemd, udevd, networkd and logind learn that devices are not theirs to manage
    # (ConditionPathIsReadWrite=/sys); /proc/sys stays writable, since all its namespaces are the container's own.
    mounts = with_readonly_sys(spec.get("mounts", []))
    taken = {inside(mount["destination"]): mount for mount in mounts}
    for destination, options in (("/run", _RUN), ("/run/lock", _LOCK), ("/tmp", _TMP)):
        # A mount of the user's own stays: theirs to lose, and systemd takes any file system there.
        if destination not in taken and not _in_volume(destination, taken):
            mounts.append({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": list(options)})
    return {**spec, "mounts": mounts}


def _in_volume(destination: str, taken: dict[str, Mount]) -> bool:
    """`/run/lock` in a `/run` that keeps its files: a mount there would hide them."""
    parent = taken.get(destination.rpartition("/")[0])
    return parent is not None and parent.get("type") != "tmpfs"

"""Which init system a container runs, and how that is asked to shut down."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Spec
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Traits

_SIGUSR2 = 12
_SIGRTMIN_PLUS_3 = 37  # counted from glibc's SIGRTMIN, as systemd is

# Programs that are init systems by name. Mere reapers (tini, dumb-init, catatonit, docker-init) are programs.
_INITS = ("init", "linuxrc", "openrc-init", "runit-init", "runit", "s6-svscan", "s6-linux-init", "sysvinit", "dinit")


def init_kind(arg0: str, resolved: str | None) -> str:
    """One of "systemd", "init", "program", from `process.args[0]` and what that is once symlinks are followed.

    `/sbin/init` alone says nothing: it may be a link to `../lib/systemd/systemd`, to busybox, or sysvinit itself; and
    systemd may be started as `/lib/systemd/systemd` or by a name of the user's own that links there.
    """
    # A multi-call binary is what it is called as: busybox is an init under the name `init`, but not under `sh`.
    called, real = arg0.rpartition("/")[2], (resolved or arg0).rpartition("/")[2]
    if real == "systemd":
        return "systemd"
    return "init" if called in _INITS or real in _INITS else "program"


def convert_init(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Note both. Changes traits only."""
    traits.init_kind = init_kind(spec["process"]["args"][0], facts.args0)
    if traits.init_kind == "systemd":
        traits.stop_signal = _SIGRTMIN_PLUS_3
    elif traits.init_kind == "init" and (facts.args0 or "").endswith("/busybox"):
        traits.stop_signal = _SIGUSR2  # its init takes SIGTERM for reboot, SIGUSR2 for poweroff
    return spec

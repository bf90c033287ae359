"""Whether a network namespace that the spec gives by path can be joined. Loaded only for a spec that gives one."""

from __future__ import annotations

from sysvisor_runc.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Traits


def check_network(where: str, path: str, facts: HostFacts, traits: Traits, *, quiet: bool) -> None:
    """Refuse another container's, whose user namespace is not given too.

    A network namespace obeys the user namespace that made it: from another one, neither its devices can be configured
    nor can sysfs be mounted (EPERM). Where it is ours, as Podman makes it, the host does the latter: `plan.foreign`.
    `quiet`: it comes with others of the same engine's making, so whoever reads a warning knows already.
    """
    if not facts.ns_ours.get(path):
        raise SpecError(
            where,
            f"joining the network namespace {path!r} means joining the user namespace that owns it",
            hint="give that user namespace by path too",
        )
    # CRI-O's pods have no other kind, and what is said while one is made is a line of the container's own log.
    if not quiet:
        traits.warnings.append(
            f"{where}: the network belongs to the host: devices, routes and filters cannot be changed inside"
        )

"""Which namespaces a system container has: all of its own, none of the host's."""

from __future__ import annotations

from sysvisor_runc.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Namespace, Spec
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Traits

# The caller must have thought of these; leaving one out means sharing it with the host.
_REQUIRED = ("pid", "ipc", "uts", "mount", "network")

# A spec rarely names these. The time namespace has no offsets of ours: it is there so that `nsenter -a` of util-linux,
# which joins every namespace, does not fail with EPERM on the host's.
_ADDED = ("user", "cgroup", "time")

_PLAIN_HINT = "--no-syscont makes a container exactly as its spec says"


def convert_namespaces(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Refuse namespaces that are the host's, add those that are missing. Raises SpecError."""
    linux = spec.get("linux", {})
    given = linux.get("namespaces", [])
    types = {ns["type"] for ns in given}
    for kind in _REQUIRED:
        if kind not in types:
            raise SpecError(
                "linux.namespaces",
                f"a system container cannot share the {kind} namespace with the host",
                hint=f'add {{"type": "{kind}"}}; {_PLAIN_HINT}',
            )
    _check_paths(given, facts, traits)
    known = facts.namespaces
    if known is not None and "user" not in known:
        raise SpecError(
            "linux.namespaces",
            "this kernel has no user namespaces, which a system container always has",
            hint="see /proc/sys/user/max_user_namespaces and CONFIG_USER_NS",
        )
    # An older kernel, or one built small, has no time or cgroup namespace: nothing then needs to be hidden there.
    added: list[Namespace] = [
        {"type": kind} for kind in _ADDED if kind not in types and (known is None or kind in known)
    ]
    return {**spec, "linux": {**linux, "namespaces": given + added}} if added else spec


def _check_paths(given: list[Namespace], facts: HostFacts, traits: Traits) -> None:
    joins_user = any(ns["type"] == "user" and ns.get("path") for ns in given)
    for index, ns in enumerate(given):
        path = ns.get("path")
        if not path:
            continue
        where = f"linux.namespaces[{index}].path"
        if facts.ns_shared.get(path):
            raise SpecError(
                where,
                f"{path!r} is the host's {ns['type']} namespace, which a system container cannot share",
                hint=_PLAIN_HINT,
            )
        if joins_user:
            if facts.ns_ours.get(path):
                traits.foreign |= {ns["type"]}
        elif ns["type"] == "network":
            from sysvisor_runc.syscont.network import check_network

            pod = any(other["type"] in ("ipc", "uts") and other.get("path") for other in given)
            check_network(where, path, facts, traits, quiet=pod)

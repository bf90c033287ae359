"""The one range of subordinate ids that a system container lives in."""

from __future__ import annotations

from sysvisor_runc.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Linux, Spec
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Traits


def needs_ids(spec: Spec) -> bool:
    """Whether a range must be allocated before `convert`: nothing in the spec says which ids to use."""
    linux = spec.get("linux", {})
    return not _joins_user(linux) and not linux.get("uidMappings") and not linux.get("gidMappings")


def convert_ids(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Validate the given mapping and merge it to one entry, or fill in the allocated range. Raises SpecError."""
    linux = spec.get("linux", {})
    if _joins_user(linux):
        traits.ids = facts.joined_ids
        from sysvisor_runc.syscont.mapping import with_joined

        return with_joined(spec, linux, traits.ids)
    if facts.own_ids is not None and needs_ids(spec):
        from sysvisor_runc.syscont.rootless import users_ids

        return users_ids(spec, facts, traits)
    if needs_ids(spec):
        traits.ids = facts.id_range
    else:
        from sysvisor_runc.syscont.mapping import given_ids

        traits.ids = given_ids(linux)
    if traits.ids is None:
        raise SpecError("linux.uidMappings", "no range of ids was allocated for the container")
    uid, gid, size = traits.ids
    converted: Linux = {
        **linux,
        "uidMappings": [{"containerID": 0, "hostID": uid, "size": size}],
        "gidMappings": [{"containerID": 0, "hostID": gid, "size": size}],
    }
    return {**spec, "linux": converted}


def _joins_user(linux: Linux) -> bool:
    return any(ns["type"] == "user" and ns.get("path") for ns in linux.get("namespaces", ()))

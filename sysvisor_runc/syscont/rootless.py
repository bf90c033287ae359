"""The ids of a system container that an ordinary user starts. Loaded only for one."""

from __future__ import annotations

from sysvisor_runc.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import IDMapping, Linux, Spec
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Traits


def users_ids(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Root is the user who calls, whose files would be nobody's otherwise; the others are his subordinate ids.

    Raises:
        SpecError: there are none.
    """
    if facts.own_ids is None or facts.id_range is None:
        raise SpecError("linux.uidMappings", "no range of ids was found for the container")
    uid, gid = facts.own_ids
    first_uid, first_gid, size = facts.id_range
    traits.ids = (uid, gid, 1)
    converted: Linux = {
        **spec.get("linux", {}),
        "uidMappings": [_entry(0, uid, 1), _entry(1, first_uid, size)],
        "gidMappings": [_entry(0, gid, 1), _entry(1, first_gid, size)],
    }
    return {**spec, "linux": converted}


def _entry(inside: int, outside: int, size: int) -> IDMapping:
    return {"containerID": inside, "hostID": outside, "size": size}

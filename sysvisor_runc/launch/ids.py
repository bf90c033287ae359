"""Ids inside a container as the host sees them."""

from __future__ import annotations

import os

from sysvisor_runc.kernel.namespaces import in_initial_user

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysvisor_runc.spec.types import IDMapping, Spec
    from sysvisor_runc.state.record import SubidRecord


def on_host(mappings: Sequence[IDMapping], number: int) -> int:
    """The host's id for `number` inside; without a mapping the same."""
    for mapping in mappings:
        if mapping["containerID"] <= number < mapping["containerID"] + mapping["size"]:
            return number - mapping["containerID"] + mapping["hostID"]
    return number


def own_id(spec: Spec, subid: SubidRecord | None) -> int | None:
    """The host's id of the container's root, if nobody outside can have it: from our ranges, `subid`, or from
    /etc/subuid; else None.
    """
    if subid is not None:
        return subid["uid"]
    mappings = (spec.get("linux") or {}).get("uidMappings")
    if not mappings or os.geteuid() != 0 or not in_initial_user():
        return None
    from sysvisor_runc.state.subid import is_subordinate

    uid = on_host(mappings, 0)
    return uid if uid and is_subordinate(uid) else None

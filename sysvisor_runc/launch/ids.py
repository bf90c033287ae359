"""Ids inside a container as the host sees them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysvisor_runc.spec.types import IDMapping


def on_host(mappings: Sequence[IDMapping], number: int) -> int:
    """The host's id for `number` inside; without a mapping the same."""
    for mapping in mappings:
        if mapping["containerID"] <= number < mapping["containerID"] + mapping["size"]:
            return number - mapping["containerID"] + mapping["hostID"]
    return number

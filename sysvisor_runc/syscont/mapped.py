"""Bind mounts that bring id mappings of their own, in a spec that has none for the container. Loaded only for those."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import IDMapping, Mount


def moved(mount: Mount, ids: tuple[int, int, int]) -> Mount:
    """The mount with what its mappings lead to in the container's range.

    Without a user namespace an id of the host is one of the container's: whoever wrote the spec meant those.
    """
    uid, gid, size = ids
    return {
        **mount,
        "uidMappings": _shifted(mount["uidMappings"], uid, size),
        "gidMappings": _shifted(mount["gidMappings"], gid, size),
    }


def _shifted(mappings: list[IDMapping], first: int, size: int) -> list[IDMapping]:
    """What lies beyond the container's ids is nobody's inside either way; a map must not be empty."""
    shifted: list[IDMapping] = [
        {**entry, "hostID": first + entry["hostID"], "size": min(entry["size"], size - entry["hostID"])}
        for entry in mappings
        if entry["hostID"] < size
    ]
    return shifted or mappings

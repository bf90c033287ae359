"""A mapping of ids that the spec brings itself: one range, or an error that says what is wrong with it.

Loaded only for a spec that brings one, or a user namespace that has one.
"""

from __future__ import annotations

from sysvisor_runc.errors import SpecError
from sysvisor_runc.syscont.facts import SHIFT_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import IDMapping, Linux, Spec

_LAST_ID = 2**32 - 2  # (uid_t) -1 means "unchanged" to chown(2) and setreuid(2)


def given_ids(linux: Linux) -> tuple[int, int, int]:
    """Host (uid, gid, size) of the container's 0. Raises SpecError."""
    uid, size = _single("linux.uidMappings", linux.get("uidMappings", []))
    gid, gid_size = _single("linux.gidMappings", linux.get("gidMappings", []))
    if gid_size != size:
        raise SpecError("linux.gidMappings", f"maps {gid_size} ids where linux.uidMappings maps {size}")
    if gid != uid:
        raise SpecError(
            "linux.gidMappings[0].hostID",
            f"must be {uid} as in linux.uidMappings, not {gid}: users and groups share one range",
        )
    return uid, gid, size


def with_joined(spec: Spec, linux: Linux, ids: tuple[int, int, int] | None) -> Spec:
    """The spec with the mapping that a joined user namespace has, as far as it is known: others look there for it."""
    if ids is None:
        return spec
    uid, gid, size = ids
    converted: Linux = {
        **linux,
        "uidMappings": [{"containerID": 0, "hostID": uid, "size": size}],
        "gidMappings": [{"containerID": 0, "hostID": gid, "size": size}],
    }
    return {**spec, "linux": converted}


def merged(mappings: list[IDMapping]) -> list[IDMapping]:
    """The same mapping in as few entries as possible: neighbours on both sides become one."""
    result: list[IDMapping] = []
    for entry in sorted(mappings, key=lambda entry: entry["containerID"]):
        last = result[-1] if result else None
        if (
            last
            and last["containerID"] + last["size"] == entry["containerID"]
            and last["hostID"] + last["size"] == entry["hostID"]
        ):
            result[-1] = {**last, "size": last["size"] + entry["size"]}
        else:
            result.append(entry)
    return result


def _single(path: str, mappings: list[IDMapping]) -> tuple[int, int]:
    """(host id of the container's 0, size) of a mapping that is one range."""
    if not mappings:
        raise SpecError(path, "must be given too: users and groups are mapped together or not at all")
    ranges = merged(mappings)
    if len(ranges) > 1:
        raise SpecError(
            path,
            f"a system container has one contiguous range of ids, not {len(ranges)}",
            hint="leave both mappings out to have a range allocated",
        )
    entry = ranges[0]
    if entry["containerID"] != 0:
        raise SpecError(f"{path}[0].containerID", f"must be 0, not {entry['containerID']}")
    if entry["size"] < SHIFT_SIZE:
        raise SpecError(f"{path}[0].size", f"must be at least {SHIFT_SIZE}, not {entry['size']}")
    if entry["hostID"] == 0:
        raise SpecError(f"{path}[0].hostID", "the container's root cannot be the host's root")
    if entry["hostID"] + entry["size"] - 1 > _LAST_ID:
        raise SpecError(f"{path}[0].size", f"the range ends beyond the last id, {_LAST_ID}")
    return entry["hostID"], entry["size"]

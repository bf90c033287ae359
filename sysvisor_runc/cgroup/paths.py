"""Where a container's cgroups lie: `linux.cgroupsPath` placed in every hierarchy of a layout.

Pure. The systemd driver has rules of its own (`slice:prefix:name`).
"""

from __future__ import annotations

from sysvisor_runc.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.layout import Hierarchy, Layout


def container_paths(layout: Layout, cgroups_path: str | None, container_id: str) -> dict[str, str]:
    """Controller (`unified` for cgroup2) → absolute path of the container's cgroup, as stored in its record.

    An absolute `cgroups_path` counts from the top of each hierarchy; a relative one, or `container_id` where there is
    none, from the caller's own cgroup. On pure v2 it counts from that cgroup's *parent*: the own one holds processes,
    so the kernel would not let it pass controllers down (cgroups(7), "no internal processes"). All as runc does.

    Raises:
        SpecError: the path climbs or names no cgroup of its own.
    """
    inner = clean(cgroups_path) if cgroups_path else "./" + container_id
    absolute = inner.startswith("/")
    inner = inner.removeprefix("./").strip("/")
    paths = {}
    for controller, hierarchy in layout.by_controller().items():
        base = hierarchy.mountpoint if absolute else _base(hierarchy, layout.kind)
        paths[controller] = f"{base}/{inner}"
    return paths


def _base(hierarchy: Hierarchy, kind: str) -> str:
    if kind == "v2" and hierarchy.own != hierarchy.mountpoint:
        return hierarchy.own.rpartition("/")[0]
    return hierarchy.own


def clean(path: str, where: str = "linux.cgroupsPath") -> str:
    """`path` without empty and `.` parts, still absolute or relative.

    Raises:
        SpecError: it has a `..` (runc clamps those silently; a path that tries to leave is no accident), a NUL or
            newline, or nothing else in it.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise SpecError(where, f"{path!r} climbs out with '..'")
    if "\0" in path or "\n" in path:  # the kernel refuses a newline in a cgroup's name
        raise SpecError(where, f"{path!r} has a NUL or newline in it")
    if not parts:
        raise SpecError(where, f"{path!r} names no cgroup of the container's own")
    return ("/" if path.startswith("/") else "") + "/".join(parts)

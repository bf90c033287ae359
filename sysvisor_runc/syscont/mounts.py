"""The mounts that every system container has, and the order of all of them."""

from __future__ import annotations

from sysvisor_runc.syscont.facts import inside, is_below, is_bind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Mount, Spec
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Traits

# Tables of mounts read like fstab(5), without the source where it is the type: destination, type, [source,] options.

# The kernel's own file systems, whatever the spec says of them. /dev/kmsg: the kernel's log is not the container's.
_REPLACING = (
    "/sys sysfs nosuid,noexec,nodev",
    "/proc proc nosuid,noexec,nodev",
    "/dev tmpfs nosuid,strictatime,mode=755,size=65536k",
    "/dev/kmsg bind /dev/null rbind,rprivate",
)
_CGROUP = "/sys/fs/cgroup cgroup nosuid,noexec,nodev"

# What a Linux system expects beside those, unless the spec has an idea of its own.
_MISSING = (
    "/dev/pts devpts nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
    "/dev/shm tmpfs shm nosuid,noexec,nodev,mode=1777,size=65536k",
    "/dev/mqueue mqueue nosuid,noexec,nodev",
)

# First in this order: everything else may lie below them. /dev, with the hidden sysfs instance, goes before /sys: a
# first mount with `ro` would make the superblock that they share read-only (see `readonly.with_readonly_sys`).
_FIRST = ("/proc", "/dev", "/sys", "/run")


def mount(line: str) -> Mount:
    """A mount of its own from a line of a table."""
    words = line.split()
    return {"destination": words[0], "type": words[1], "source": words[-2], "options": words[-1].split(",")}


def convert_mounts(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Replace the spec's base mounts, add the missing ones, drop devices that they replace."""
    base = [mount(line) for line in _REPLACING]
    if facts.cgroup == "none":
        traits.warnings.append("no cgroup file system is mounted on the host: the container gets no cgroup of its own")
    else:
        traits.delegate_cgroup = True
        base.append(mount(_CGROUP))
    places = {entry["destination"]: entry for entry in base}
    taken: dict[str, Mount] = {}
    kept = []
    for entry in spec.get("mounts", ()):
        where = inside(entry["destination"])
        if where not in places and not is_below(where, "/sys/fs/cgroup"):
            taken[where] = entry
            kept.append(entry)
        elif is_bind(entry):
            traits.warnings.append(f"{where}: the spec's bind mount gives way to the system container's own")
        elif where in places:
            _keep_data(places[where], entry)
    for line in (*_MISSING, *_optional(facts)):
        entry = mount(line)
        if _is_free(entry["destination"], taken):
            base.append(entry)
    linux = spec.get("linux", {})
    devices = [device for device in linux.get("devices", ()) if inside(device["path"]) not in places]
    return {**spec, "mounts": base + kept, "linux": {**linux, "devices": devices}}


def _optional(facts: HostFacts) -> list[str]:
    """Kernel modules, headers and binfmt_misc, where both sides have a place."""
    lines = [
        f"{path} bind {path} ro,nosuid,nodev,rbind,rprivate"
        for path in sorted(facts.host_paths)
        if ("/lib" if path.startswith("/lib/") else "/usr/src") in facts.rootfs_dirs
    ]
    # One instance per user namespace since Linux 6.7; before, mounting it inside was EPERM.
    if facts.kernel >= (6, 7) and "binfmt_misc" in facts.filesystems:
        lines.append("/proc/sys/fs/binfmt_misc binfmt_misc nosuid,noexec,nodev")
    return lines


def _is_free(destination: str, taken: dict[str, Mount]) -> bool:
    """Whether the spec mounts nothing there, nor above it: that would hide it.

    Mounts at `/`, `/lib` and the like do not count: they are the rootfs by another name.
    """
    return not any(place == destination or (place.count("/") > 1 and is_below(destination, place)) for place in taken)


def _keep_data(base: Mount, given: Mount) -> None:
    """Take over the `key=value` options (hidepid, size) of a mount of the same type."""
    if given.get("type") == base["type"] and base["type"] in ("proc", "tmpfs"):
        for option in given.get("options", ()):
            key, equals, _ = option.partition("=")
            if equals:
                base["options"] = [own for own in base["options"] if not own.startswith(key + "=")] + [option]


def sort_mounts(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Order: `/proc`, `/dev`, `/sys`, `/run` and what is in them, then the rest as given, binds last; but each after
    what it lies below (`/var/run/x` is in `/run`), and after earlier ones at its place.
    """
    by_place: dict[str, list[Mount]] = {}
    ranked = []
    for index, entry in enumerate(spec.get("mounts", ())):
        place = facts.destinations.get(entry["destination"]) or inside(entry["destination"])
        by_place.setdefault(place, []).append(entry)
        ranked.append((_rank(entry, place), index, place))
    ranked.sort()
    if len(by_place) < len(ranked):
        from sysvisor_runc.syscont.stacked import order

        return {**spec, "mounts": order(spec["mounts"], ranked)}
    ordered: list[Mount] = []
    for _, _, place in ranked:
        ordered += by_place.pop("/", ())
        slash = place.find("/", 1)
        while slash != -1:
            ordered += by_place.pop(place[:slash], ())
            slash = place.find("/", slash + 1)
        ordered += by_place.pop(place, ())
    return {**spec, "mounts": ordered}


def _rank(entry: Mount, place: str) -> int:
    if is_bind(entry):
        return len(_FIRST) + 1
    for rank, prefix in enumerate(_FIRST):
        if place == prefix or is_below(place, prefix):
            return rank
    return len(_FIRST)

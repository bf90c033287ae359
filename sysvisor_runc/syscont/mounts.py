"""The mounts that every system container has, and the order in which all of them are made."""

from __future__ import annotations

from sysvisor_runc.syscont.facts import inside, is_below, is_bind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Mount, Spec
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Traits

# The kernel's own file systems, whatever the spec says of them.
_REPLACING: tuple[Mount, ...] = (
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    # The kernel's log is not the container's; reading it needs CAP_SYSLOG in the initial user namespace.
    {"destination": "/dev/kmsg", "type": "bind", "source": "/dev/null", "options": ["rbind", "rprivate"]},
)

# What a Linux system expects beside those, unless the spec has an idea of its own.
_MISSING: tuple[Mount, ...] = (
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
    },
    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
)

_BINFMT_MISC: Mount = {
    "destination": "/proc/sys/fs/binfmt_misc",
    "type": "binfmt_misc",
    "source": "binfmt_misc",
    "options": ["nosuid", "noexec", "nodev"],
}

# First in this order: everything else may lie below them.
_FIRST = ("/sys", "/proc", "/dev", "/run")


def convert_mounts(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Put the base mounts in place of the spec's own, add the missing ones, drop devices that they replace."""
    base = [mount for mount in fresh(_REPLACING) if facts.cgroup != "none" or mount["type"] != "cgroup"]
    if facts.cgroup == "none":
        traits.warnings.append("no cgroup file system is mounted on the host: the container gets no cgroup of its own")
    else:
        traits.delegate_cgroup = True
    places = {mount["destination"] for mount in base}
    given: dict[str, Mount] = {}
    kept: list[Mount] = []
    for mount in spec.get("mounts", ()):
        where = inside(mount["destination"])
        if where in places or is_below(where, "/sys/fs/cgroup"):
            given[where] = mount
            if is_bind(mount):
                traits.warnings.append(f"{where}: the spec's bind mount gives way to the system container's own")
        else:
            kept.append(mount)
    added = [_with_data(mount, given.get(mount["destination"])) for mount in base]
    taken = {inside(mount["destination"]) for mount in kept}
    added += [mount for mount in (*fresh(_MISSING), *_optional(facts)) if _is_free(mount["destination"], taken)]
    return _without_devices({**spec, "mounts": added + kept}, places)


def with_readonly_sys(mounts: list[Mount]) -> list[Mount]:
    """The same mounts with `/sys` read-only.

    As a flag of the mount, never of the superblock: all sysfs mounts of a network namespace share one superblock, and
    a read-only one makes each later `mount -t sysfs` inside fail with EPERM (mount_too_revealing, fs/namespace.c).
    """
    return [
        {**mount, "options": [*mount.get("options", []), "ro"]}
        if mount.get("type") == "sysfs" and inside(mount["destination"]) == "/sys" and "ro" not in mount["options"]
        else mount
        for mount in mounts
    ]


def convert_readonly_root(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """A read-only rootfs still gets writable `/run` and `/tmp`; `/sys` follows the rootfs, the cgroup mount does not.

    `root.readonly` speaks of the root file system: a delegated cgroup is no part of it and stays usable.
    """
    if not spec["root"].get("readonly"):
        return spec
    mounts = with_readonly_sys(spec.get("mounts", []))
    taken = {inside(mount["destination"]) for mount in mounts}
    for destination, mode in (("/run", "755"), ("/tmp", "1777")):
        if destination not in taken:
            options = ["rw", "rprivate", "noexec", "nosuid", "nodev", f"mode={mode}", "size=64m"]
            mounts.append({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options})
    return {**spec, "mounts": mounts}


def _optional(facts: HostFacts) -> list[Mount]:
    """Kernel modules, headers and binfmt_misc, where host and rootfs both have a place for them."""
    result: list[Mount] = []
    for path in sorted(facts.host_paths):
        if ("/lib" if path.startswith("/lib/") else "/usr/src") in facts.rootfs.dirs:
            options = ["ro", "nosuid", "nodev", "rbind", "rprivate"]
            result.append({"destination": path, "type": "bind", "source": path, "options": options})
    # One instance per user namespace since Linux 6.7; before, mounting it inside was EPERM.
    if facts.kernel >= (6, 7) and "binfmt_misc" in facts.filesystems:
        result += fresh((_BINFMT_MISC,))
    return result


def _is_free(destination: str, taken: set[str]) -> bool:
    """Whether the spec mounts nothing there or above it that it would hide or need a place in.

    Mounts of the spec at `/`, `/lib` and the like do not count: they are the rootfs by another name.
    """
    return not any(place == destination or (place.count("/") > 1 and is_below(destination, place)) for place in taken)


def fresh(mounts: tuple[Mount, ...]) -> list[Mount]:
    """Copies, so that nobody's later change reaches the table that they come from."""
    return [{**mount, "options": list(mount["options"])} for mount in mounts]


def _with_data(mount: Mount, given: Mount | None) -> Mount:
    """A base mount that keeps the `key=value` options (hidepid, size) of the spec's mount of the same type."""
    if given is None or given.get("type") != mount["type"] or mount["type"] not in ("proc", "tmpfs"):
        return mount
    data = {option.partition("=")[0]: option for option in given.get("options", ()) if "=" in option}
    options = [option for option in mount["options"] if option.partition("=")[0] not in data]
    return {**mount, "options": options + list(data.values())}


def _without_devices(spec: Spec, places: set[str]) -> Spec:
    linux = spec.get("linux", {})
    devices = linux.get("devices", [])
    kept = [device for device in devices if inside(device["path"]) not in places]
    return {**spec, "linux": {**linux, "devices": kept}} if len(kept) != len(devices) else spec


def sort_mounts(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Order: `/sys`, `/proc`, `/dev`, `/run` and what is in them, then the rest as given, binds last.

    Whatever its turn, a mount comes after those that it lies below, judged by where symlinks lead (`/var/run/secrets`
    is in `/run`), and after earlier mounts at the same place.
    """
    by_place: dict[str, list[Mount]] = {}
    ranked: list[tuple[int, int, str]] = []
    for index, mount in enumerate(spec.get("mounts", ())):
        destination = mount["destination"]
        place = facts.destinations.get(destination) or inside(destination)
        by_place.setdefault(place, []).append(mount)
        ranked.append((_rank(mount, place), index, place))
    ranked.sort()
    ordered: list[Mount] = []
    for _, _, place in ranked:
        for ancestor in _ancestors(place):
            ordered += by_place.pop(ancestor, ())
        ordered += by_place.pop(place, ())
    return {**spec, "mounts": ordered}


def _rank(mount: Mount, place: str) -> int:
    if is_bind(mount):
        return len(_FIRST) + 1
    for rank, prefix in enumerate(_FIRST):
        if place == prefix or is_below(place, prefix):
            return rank
    return len(_FIRST)


def _ancestors(place: str) -> list[str]:
    """Every directory above a place, outermost first: ["/", "/a", "/a/b"] of "/a/b/c"."""
    parts = place.strip("/").split("/")
    return ["/"] + ["/" + "/".join(parts[:count]) for count in range(1, len(parts))]

"""ID-mapped mounts: which file systems allow them, and what they mean for the rootfs and for bind mounts."""

from __future__ import annotations

from sysvisor_runc.errors import SpecError
from sysvisor_runc.syscont.facts import inside, is_below, is_bind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Mount, Spec
    from sysvisor_runc.syscont.facts import HostFacts, RootfsFacts, SourceFacts
    from sysvisor_runc.syscont.traits import Traits

OVERLAYFS = 0x794C7630

# statfs magic → (name, first kernel whose FS_ALLOW_IDMAP covers it). Consulted only where nobody tried the real thing.
_ALLOWED = {
    0xEF53: ("ext4", (5, 12)),
    0x58465342: ("xfs", (5, 12)),
    0x4D44: ("vfat", (5, 12)),
    0x9123683E: ("btrfs", (5, 15)),
    0x7366746E: ("ntfs3", (5, 15)),
    0xF2F52010: ("f2fs", (5, 18)),
    0xE0F5E1E2: ("erofs", (5, 19)),
    0x73717368: ("squashfs", (6, 2)),
    0x01021994: ("tmpfs", (6, 3)),
    0x00C36400: ("ceph", (6, 7)),
    0xCA451A4E: ("bcachefs", (6, 7)),
}

_REFUSED = {OVERLAYFS: "overlayfs", 0x65735546: "fuse", 0x6A656A63: "fakeowner", 0x6969: "nfs", 0xFE534D42: "smb"}


def why_not(magic: int, kernel: tuple[int, int], tried: bool | None) -> str | None:
    """None where an ID-mapped mount works as far as is known, else the reason, for a person."""
    name, since = _ALLOWED.get(magic, (_REFUSED.get(magic, f"file system type {magic:#x}"), None))
    if tried:
        return None
    if tried is False or since is None:
        return f"{name} does not support ID-mapped mounts"
    if kernel < since:
        return f"{name} supports ID-mapped mounts from Linux {since[0]}.{since[1]} on"
    return None


def convert_rootfs(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Decide how the files of the rootfs get owners that exist inside. Changes traits only. Raises SpecError."""
    rootfs = facts.rootfs
    if traits.ids is None:
        return spec  # a joined user namespace: its creator has prepared the rootfs
    uid, gid, size = traits.ids
    if uid <= rootfs.uid < uid + size and gid <= rootfs.gid < gid + size:
        return spec
    if rootfs.uid >= size or rootfs.gid >= size:
        raise SpecError(
            "root.path",
            f"{rootfs.path!r} is owned by {rootfs.uid}:{rootfs.gid}, "
            f"which is neither in 0–{size - 1} nor in the container's range {uid}–{uid + size - 1}",
            hint="was it chowned for another container? give its ids in linux.uidMappings and linux.gidMappings",
        )
    problem = _rootfs_problem(rootfs, facts.kernel)
    if problem is None:
        traits.rootfs_idmap = True
    elif traits.settings.chown_rootfs:
        traits.chown_rootfs = True
    else:
        raise SpecError(
            "root.path",
            f"{rootfs.path!r} cannot be shown with the container's ids: {problem}",
            hint="the annotation org.sysvisor.chown-rootfs=true allows its files to be chowned instead",
        )
    return spec


def _rootfs_problem(rootfs: RootfsFacts, kernel: tuple[int, int]) -> str | None:
    # A type that this table has never heard of gets its chance: mount_setattr(2) knows better.
    if rootfs.idmap is None and rootfs.magic not in _ALLOWED and rootfs.magic not in _REFUSED:
        return None
    return why_not(rootfs.magic, kernel, rootfs.idmap)


def convert_binds(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Give bind mounts the `idmap` or `ridmap` option, so that their files have owners inside.

    Without mappings of the mount's own the option means the container's mapping (runtime-spec, "Mount options").
    What cannot be mapped is left as it is and shows as nobody's, with a warning; never an error, never a chown.
    """
    if traits.ids is None:
        return spec
    given = spec.get("mounts", [])
    mounts = [_with_idmap(mount, facts, traits) if is_bind(mount) else mount for mount in given]
    return {**spec, "mounts": mounts} if mounts != given else spec


def _with_idmap(mount: Mount, facts: HostFacts, traits: Traits) -> Mount:
    options = mount.get("options", [])
    source = facts.sources.get(mount.get("source", ""))
    if "uidMappings" in mount or "idmap" in options or "ridmap" in options or source is None:
        return mount
    if _stays(mount, source, facts, traits):
        return mount
    problem = why_not(source.magic, facts.kernel, source.idmap)
    if problem is not None:
        traits.warnings.append(f"{mount['destination']}: files will belong to nobody inside: {problem}")
        return mount
    # mount_setattr(AT_RECURSIVE) is all or nothing: one FUSE mount below the source would fail the whole tree.
    whole = "rbind" in options and not any(why_not(magic, facts.kernel, None) for magic in source.submounts)
    return {**mount, "options": [*options, "ridmap" if whole else "idmap"]}


def _stays(mount: Mount, source: SourceFacts, facts: HostFacts, traits: Traits) -> bool:
    """Whether a bind is right as it is: its ids fit already, or must not be touched."""
    path = inside(mount.get("source", ""))
    uid, gid, size = traits.ids or (0, 0, 0)
    return (
        source.device
        or inside(mount["destination"]) in traits.settings.skip_uid_shift
        or (uid <= source.uid < uid + size and gid <= source.gid < gid + size)
        # devtmpfs reports tmpfs' magic and refuses ID-mapping.
        or ((path == "/dev" or is_below(path, "/dev")) and not is_below(path, "/dev/shm") and source.idmap is None)
        or (facts.fs_mountpoint is not None and is_below(path, facts.fs_mountpoint))
        # With the rootfs shown as it is, what lies in it already has the container's ids.
        or (is_below(path, facts.rootfs.path) and not traits.rootfs_idmap)
    )

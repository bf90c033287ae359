"""How the files of the rootfs get owners that exist inside."""

from __future__ import annotations

from sysvisor_runc.errors import SpecError
from sysvisor_runc.syscont.idmap import is_known, why_not

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Spec
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Traits


def convert_rootfs(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Decide between as it is, an ID-mapped mount of it or of its layers and, where that was allowed, chown.

    Changes traits only.

    Raises SpecError with the reason where none of them works.
    """
    rootfs = facts.rootfs
    if traits.ids is None:
        return spec  # a joined user namespace: its creator has prepared the rootfs
    uid, gid, size = traits.ids
    if (uid <= rootfs.uid < uid + size and gid <= rootfs.gid < gid + size) or facts.uid_shift == "none":
        return spec
    if facts.own_ids is not None:
        raise SpecError(
            "root.path",
            f"{facts.rootfs_path!r} is owned by {rootfs.uid}:{rootfs.gid}, not by you",
            hint="only root can have it shown with other owners; unpack it yourself, as with `podman unshare`",
        )
    if rootfs.uid >= size or rootfs.gid >= size:
        raise SpecError(
            "root.path",
            f"{facts.rootfs_path!r} is owned by {rootfs.uid}:{rootfs.gid}, "
            f"which is neither in 0–{size - 1} nor in the container's range {uid}–{uid + size - 1}",
            hint="was it chowned for another container? give its ids in linux.uidMappings and linux.gidMappings",
        )
    if facts.uid_shift == "chown":
        traits.chown_rootfs = True
        return spec
    if rootfs.layers is not None:
        from sysvisor_runc.syscont.layers import why_not_layers

        problem = why_not_layers(rootfs.layers, facts.kernel)
        if problem is None:
            traits.rootfs_layers = rootfs.layers
            return spec
    else:
        problem = why_not(rootfs.magic, facts.kernel, rootfs.idmap)
    # A file system that the table has never heard of gets its chance: mount_setattr(2) knows better.
    if problem is None or (rootfs.idmap is None and not is_known(rootfs.magic)):
        traits.rootfs_idmap = True
    elif traits.settings.chown_rootfs:
        traits.chown_rootfs = True
    else:
        raise SpecError(
            "root.path",
            f"{facts.rootfs_path!r} cannot be shown with the container's ids: {problem}",
            hint="--uid-shift chown, or the annotation org.sysvisor.chown-rootfs=true, has its files chowned instead",
        )
    return spec

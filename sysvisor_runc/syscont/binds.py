"""Bind mounts whose files get owners that exist inside. Loaded only where a source is known."""

from __future__ import annotations

from sysvisor_runc.syscont.facts import inside, is_below, is_bind
from sysvisor_runc.syscont.idmap import why_not

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Mount, Spec
    from sysvisor_runc.syscont.facts import HostFacts, PathFacts
    from sysvisor_runc.syscont.traits import Traits


def convert_binds(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Give bind mounts the `idmap` or `ridmap` option.

    Without mappings of the mount's own the option means the container's mapping (runtime-spec, "Mount options").
    What cannot be mapped is left as it is and shows as nobody's, with a warning; never an error, never a chown.
    """
    if traits.ids is None:
        return spec
    given = spec.get("mounts", [])
    return {**spec, "mounts": [_with_idmap(mount, facts, traits) if is_bind(mount) else mount for mount in given]}


def _with_idmap(mount: Mount, facts: HostFacts, traits: Traits) -> Mount:
    options = mount.get("options", [])
    source = facts.sources.get(mount.get("source", ""))
    if "uidMappings" in mount and facts.id_range is not None:
        from sysvisor_runc.syscont.mapped import moved

        return moved(mount, facts.id_range)
    if "uidMappings" in mount or "idmap" in options or "ridmap" in options or source is None:
        return mount
    if _stays(mount, source, facts, traits):
        return mount
    problem = why_not(source.magic, facts.kernel, source.idmap)
    if source.layers is not None and facts.own_ids is None and ("ro" in options or "rro" in options):
        # An image as a volume: nobody writes, so that its layers can be read through another overlay.
        from sysvisor_runc.syscont.layers import read_only, why_not_layers

        problem = why_not_layers(source.layers, facts.kernel)
        if problem is None:
            traits.bind_layers[mount.get("source", "")] = read_only(source.layers)
            return mount
    if facts.own_ids is not None:
        problem = "only root can have mounts ID-mapped"
    if problem is not None:
        traits.warnings.append(f"{mount['destination']}: files will belong to nobody inside: {problem}")
        return mount
    # mount_setattr(AT_RECURSIVE) is all or nothing: one FUSE mount below the source would fail the whole tree.
    whole = "rbind" in options and not any(why_not(magic, facts.kernel, None) for magic in source.submounts)
    return {**mount, "options": [*options, "ridmap" if whole else "idmap"]}


def _stays(mount: Mount, source: PathFacts, facts: HostFacts, traits: Traits) -> bool:
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
    )

"""The mounts that sysvisor-fs serves, as operations. Pure; loaded only with sysvisor-fs.

They come last, so that the calls that bring them about have the time of all the others; what lies below them comes
behind the registration, since only then is there anything in them.
"""

from __future__ import annotations

from sysvisor_runc.child.served import ReceiveTrees, Register, ServedMount
from sysvisor_runc.plan.mounts import clean
from sysvisor_runc.plan.options import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.plan.mounts import MountPlan
    from sysvisor_runc.spec.types import Mount
    from sysvisor_runc.syscont.traits import Traits

    Entries = list[tuple[Mount, str]]

# Numbers of their trees, out of the way of those that the host opens before the clone.
FIRST_TREE = 1 << 16


def split(entries: Entries, traits: Traits) -> tuple[Entries, Entries, Entries]:
    """Mounts (each with its JSON path) that are made as ever, those that are served, and those that lie below these."""
    ordinary: Entries = []
    served: Entries = []
    deferred: Entries = []
    for entry in entries:
        mount = entry[0]
        if (mount.get("source") or "").startswith(traits.fs_root + "/"):
            served.append(entry)
        elif clean(mount["destination"]) in traits.deferred_mounts:
            deferred.append(entry)
        else:
            ordinary.append(entry)
    return ordinary, served, deferred


def add(mounts: MountPlan, served: Entries, deferred: Entries, traits: Traits) -> list[str]:
    """Plan them; the paths below the container's tree that the host is to ask the daemon for, in order."""
    paths = [mount["source"].removeprefix(traits.fs_root + "/") for mount, _ in served]
    mounts.operations.append(ReceiveTrees(len(paths)))
    for index, (mount, _) in enumerate(served):
        attributes = parse(mount.get("options") or ()).attributes
        mounts.operations.append(ServedMount(FIRST_TREE + index, clean(mount["destination"]), attributes))
    mounts.operations.append(Register())
    for mount, where in deferred:
        mounts.add(mount, where)
    return paths

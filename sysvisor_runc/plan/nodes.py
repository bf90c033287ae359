"""A /dev with real device nodes for a container in a user namespace: a tmpfs that the host makes. Pure.

In there mknod(2) is refused, and a bind of the host's node shows its owner as nobody, with the host's mode. So the
host, which may, makes the file system with the nodes in it, owned by the container's ids. systemd-nspawn does so, too.
"""

from __future__ import annotations

from sysvisor_runc.child.mounts import BindMount, FilesystemMount
from sysvisor_runc.child.nodes import MakeDevice
from sysvisor_runc.plan.mounts import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysvisor_runc.plan.mounts import MountPlan
    from sysvisor_runc.spec.types import IDMapping

DEV = "/dev"


class NodeTree(Tree):
    """A tmpfs that the host makes.

    Attributes:
        options: of the tmpfs, in order.
        owner: host (uid, gid) of its directories.
        nodes: (path below it, mode with type, major, minor, host uid, host gid).
    """

    __slots__ = ("nodes", "options", "owner")

    def __init__(self, options: Sequence[tuple[str, str | None]], owner: tuple[int, int]) -> None:
        super().__init__("tmpfs", recursive=False, where=DEV)
        self.options = options
        self.owner = owner
        self.nodes: list[tuple[str, int, int, int, int, int]] = []

    def describe(self) -> str:
        return "make a tmpfs with devices " + " ".join(path for path, *_ in self.nodes)


def make_on_host(mounts: MountPlan, uids: Sequence[IDMapping], gids: Sequence[IDMapping]) -> None:
    """Have the host make the planned tmpfs at /dev, with the devices that were to be binds in it."""
    index = next((i for i, planned in enumerate(mounts.operations) if _is_dev(planned)), None)
    if index is None or mounts.mount_label:
        return  # no private /dev; or one whose SELinux context the container's own mount sets
    dev = mounts.operations[index]
    assert isinstance(dev, FilesystemMount)
    others = [op.destination for op in mounts.operations if isinstance(op, FilesystemMount | BindMount)]
    below = tuple(f"{path}/" for path in others if path.startswith(DEV + "/"))
    tree = NodeTree(dev.options, (outside(uids, 0), outside(gids, 0)))
    kept = []
    for operation in mounts.operations:
        if isinstance(operation, MakeDevice) and _fits(operation, below):
            kind = 0o060000 if operation.kind == "b" else 0o020000
            owner = outside(uids, operation.uid), outside(gids, operation.gid)
            path = operation.path[len(DEV) + 1 :]
            tree.nodes.append((path, kind | operation.mode, operation.major, operation.minor, *owner))
        else:
            kept.append(operation)
    number = mounts.tree(tree)
    kept[kept.index(dev)] = BindMount(number, "tmpfs", DEV, recursive=False, attributes=dev.attributes)
    mounts.operations = kept


def _is_dev(operation: object) -> bool:
    return (
        isinstance(operation, FilesystemMount)
        and (operation.fstype, operation.destination) == ("tmpfs", DEV)
        and not operation.copy_up
    )


def _fits(device: MakeDevice, below: tuple[str, ...]) -> bool:
    return device.kind in ("c", "u", "b") and device.path.startswith(DEV + "/") and not device.path.startswith(below)


def outside(mappings: Sequence[IDMapping], number: int) -> int:
    """The host's id for one inside; for one that is not mapped, that of root."""
    for mapping in mappings:
        if mapping["containerID"] <= number < mapping["containerID"] + mapping["size"]:
            return number - mapping["containerID"] + mapping["hostID"]
    return outside(mappings, 0) if number else 0

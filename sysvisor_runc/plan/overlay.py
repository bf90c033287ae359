"""A root file system that is an overlay: the host mounts its layers anew, each ID-mapped. Pure."""

from __future__ import annotations

from sysvisor_runc.errors import SpecError
from sysvisor_runc.kernel.namespaces import CLONE_NEWUSER
from sysvisor_runc.plan.mounts import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.plan.plan import Plan
    from sysvisor_runc.syscont.layers import Layers
    from sysvisor_runc.syscont.traits import Traits


class OverlayTree(Tree):
    """Another overlay of the same layers.

    Attributes:
        layers: where they are.
        owner: host (uid, gid) of the container's root.
        userns: path of the user namespace that the container joins; "": a new one, with the tree's mappings.
        work: a fresh directory beside the layers' own `work`, made by the launch; "" until then, or without an upper.
    """

    __slots__ = ("layers", "owner", "userns", "work")

    def __init__(self, path: str, layers: Layers, owner: tuple[int, int], *, propagation: int) -> None:
        super().__init__(path, recursive=False, where="root.path", propagation=propagation)
        self.layers = layers
        self.owner = owner
        self.userns = ""
        self.work = ""

    def describe(self) -> str:
        access = "writable" if self.layers.upper else "read-only"
        return f"mount anew the {len(self.layers.paths())} layers of {self.path}, id-mapped to the container, {access}"


def overlay_tree(plan: Plan, traits: Traits, propagation: int) -> OverlayTree:
    """The tree of the root, whose layers are in `traits`."""
    if traits.rootfs_layers is None or traits.ids is None:
        raise SpecError("root.path", f"{plan.rootfs!r} has no layers that could be ID-mapped")
    tree = OverlayTree(plan.rootfs, traits.rootfs_layers, traits.ids[:2], propagation=propagation)
    tree.uid_mappings, tree.gid_mappings = plan.uid_mappings, plan.gid_mappings
    tree.userns = dict(plan.join).get(CLONE_NEWUSER, "")
    return tree

"""A root or a read-only volume that is an overlay: the host mounts its layers anew, each ID-mapped. Pure."""

from __future__ import annotations

from sysvisor_runc.plan.mounts import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.syscont.layers import Layers


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

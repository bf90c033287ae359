"""Which trees of a plan are shown by their layers: overlays, which cannot be ID-mapped themselves. Pure.

Loaded only where there is one.
"""

from __future__ import annotations

import os

from sysvisor_runc.kernel.mount import MOUNT_ATTR_RDONLY
from sysvisor_runc.kernel.namespaces import CLONE_NEWUSER
from sysvisor_runc.plan.overlay import OverlayTree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.plan.mounts import MountPlan, Tree
    from sysvisor_runc.plan.plan import Plan
    from sysvisor_runc.syscont.layers import Layers
    from sysvisor_runc.syscont.traits import Traits


def of_layers(plan: Plan, tree: Tree, layers: Layers, owner: tuple[int, int]) -> OverlayTree:
    """What shows the same as `tree` in the container of `plan`."""
    made = OverlayTree(tree.path, layers, owner, propagation=tree.propagation)
    made.where, made.attributes = tree.where, tree.attributes
    made.uid_mappings, made.gid_mappings = plan.uid_mappings, plan.gid_mappings
    made.userns = dict(plan.join).get(CLONE_NEWUSER, "")
    return made


def bind_layers(plan: Plan, mounts: MountPlan, traits: Traits) -> None:
    """Have read-only binds whose layers `traits` knows show these."""
    known = {os.path.join(mounts.bundle, source): layers for source, layers in traits.bind_layers.items()}
    for number, tree in enumerate(mounts.trees):
        layers = known.get(tree.path)
        if layers is None or traits.ids is None or tree.attributes is None:
            continue
        if (tree.attributes.set | tree.attributes.set_tree) & MOUNT_ATTR_RDONLY:
            mounts.trees[number] = of_layers(plan, tree, layers, traits.ids[:2])

"""Namespaces that are joined and belong to another user namespace than the container's: Podman's network, CRI-O's pods.

What such a namespace governs obeys the user namespace that owns it. So from inside neither sysfs (of the network) nor
mqueue (of ipc) can be mounted, nor their sysctls or the host name be set: EPERM. The host does all that beforehand.
Pure.
"""

from __future__ import annotations

from sysvisor_runc.child.mounts import Attributes, BindMount, FilesystemMount
from sysvisor_runc.kernel import mount as m
from sysvisor_runc.kernel import namespaces as ns
from sysvisor_runc.plan.mounts import Tree
from sysvisor_runc.plan.nodes import outside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.plan.mounts import MountPlan
    from sysvisor_runc.plan.plan import Plan

HIDDEN = "/dev/.sysvisor/sys"  # of no use where the container may not mount sysfs anyway
_GOVERNED = {"sysfs": ns.CLONE_NEWNET, "mqueue": ns.CLONE_NEWIPC}
_SYSCTLS = {
    "net/": ns.CLONE_NEWNET,
    "fs/mqueue/": ns.CLONE_NEWIPC,
    "kernel/msg": ns.CLONE_NEWIPC,
    "kernel/sem": ns.CLONE_NEWIPC,
    "kernel/shm": ns.CLONE_NEWIPC,
    "kernel/domainname": ns.CLONE_NEWUTS,
}
_PING_GROUPS = "net/ipv4/ping_group_range"
_FIRST_PORT = "net/ipv4/ip_unprivileged_port_start"


class ForeignTree(Tree):
    """A file system that the host mounts from within a namespace.

    Attributes:
        fstype: what is mounted.
        namespace: (type, path) of the namespace that governs it.
    """

    __slots__ = ("fstype", "namespace")

    def __init__(self, fstype: str, namespace: tuple[int, str], where: str) -> None:
        super().__init__(fstype, recursive=False, where=where)
        self.fstype = fstype
        self.namespace = namespace
        # It is the host's: nobody inside may write, and must not be able to take that away.
        readonly = m.MOUNT_ATTR_RDONLY if fstype == "sysfs" else 0
        self.attributes = Attributes(readonly | m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC)

    def describe(self) -> str:
        return f"mount {self.fstype} in the {ns.names(self.namespace[0])} namespace {self.namespace[1]}"


def mount_from_host(plan: Plan, mounts: MountPlan, foreign: int) -> None:
    """Have the host mount what the container may not, in the namespaces `foreign` (clone flags) that it joins."""
    joined = dict(plan.join)
    operations = []
    for operation in mounts.operations:
        kind = _GOVERNED.get(operation.fstype, 0) if isinstance(operation, FilesystemMount) else 0
        if not isinstance(operation, FilesystemMount) or not kind & foreign:
            operations.append(operation)
        elif operation.destination != HIDDEN:
            tree = ForeignTree(operation.fstype, (kind, joined[kind]), operation.destination)
            number = mounts.tree(tree)
            attributes = tree.attributes or operation.attributes
            operations.append(
                BindMount(number, operation.fstype, operation.destination, recursive=False, attributes=attributes)
            )
    mounts.operations = operations


def set_from_host(plan: Plan, foreign: int, *, syscont: bool) -> None:
    """Have the host set what the container may not, in the namespaces `foreign` (clone flags) that it joins.

    A machine's root opens any port, so in a system container's network everybody may: there is nobody else there.
    """
    child = plan.child
    if foreign & ns.CLONE_NEWUTS:
        names = (("kernel/hostname", child.hostname), ("kernel/domainname", child.domainname))
        plan.joined_sysctl += [(ns.CLONE_NEWUTS, path, name) for path, name in names if name]
        child.hostname = child.domainname = ""
    kept = []
    for path, value in child.sysctl:
        kind = next((kind for start, kind in _SYSCTLS.items() if path.startswith(start)), 0)
        if not kind & foreign:
            kept.append((path, value))
        else:
            plan.joined_sysctl.append((kind, path, _groups_outside(plan, value) if path == _PING_GROUPS else value))
    child.sysctl = kept
    if syscont and foreign & ns.CLONE_NEWNET and _FIRST_PORT not in (path for _, path, _ in plan.joined_sysctl):
        plan.joined_sysctl.append((ns.CLONE_NEWNET, _FIRST_PORT, "0"))


def _groups_outside(plan: Plan, value: str) -> str:
    """The range of groups in the ids of the user namespace that owns the network: the host's."""
    words = value.split()
    if len(words) != 2 or not all(word.isdecimal() for word in words) or int(words[0]) > int(words[1]):
        return value
    return " ".join(str(outside(plan.gid_mappings, int(word))) for word in words)

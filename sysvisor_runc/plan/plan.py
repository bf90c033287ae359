"""The launch plan: what the host does and what the child does, in order, as values that describe themselves. Pure."""

from __future__ import annotations

from sysvisor_runc.kernel.namespaces import CLONE_NEWUSER, names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from sysvisor_runc.child.hook import Hook
    from sysvisor_runc.child.plan import ChildPlan
    from sysvisor_runc.plan.mounts import Tree
    from sysvisor_runc.plan.overlay import OverlayTree
    from sysvisor_runc.plan.seccomp_cache import Filter
    from sysvisor_runc.spec.types import IDMapping, IntelRdt, IOPriority, Scheduler

    class Described(Protocol):
        """A cgroup setting, as far as the plan is concerned."""

        def describe(self) -> str: ...


class Plan:
    """Attributes:

    child: what happens between clone3 and execve.
    clone_flags: the new namespaces made by clone3.
    join: (nstype, path) of namespaces that exist already, in the order of joining; the user namespace comes last.
    uid_mappings, gid_mappings: of the container's user namespace, as far as they are known.
    trees: detached mounts to open before the clone, by number.
    fs_paths: what sysvisor-fs is asked for, below the container's tree there, by number from served.FIRST_TREE on.
    inner_trees: mounts of the container's own that the child opens and the host may have to ID-map.
    settings: cgroup settings in order, for the description.
    rlimits: (resource, name, soft, hard).
    oom_score_adj: None leaves the caller's; `oom_score_adj_min` is written before it so that the container may go
        down to it again.
    hooks: kind to hooks in order.
    net_devices: host name to name in the container.
    joined_sysctl: (nstype, name below /proc/sys, value) that the host sets in namespaces that are joined.
    overlay: the root's tree where the host mounts its layers anew.
    owner: whose the new user namespace is on the host; None leaves it to be the caller's.
    delegate: the container's root owns a cgroup below its limits: (uid, gid) on the host.
    """

    __slots__ = (
        "child",
        "clone_flags",
        "delegate",
        "fs_paths",
        "gid_mappings",
        "hooks",
        "inner_trees",
        "intel_rdt",
        "io_priority",
        "join",
        "joined_sysctl",
        "net_devices",
        "oom_score_adj",
        "oom_score_adj_min",
        "overlay",
        "owner",
        "rlimits",
        "rootfs",
        "scheduler",
        "seccomp",
        "settings",
        "trees",
        "uid_mappings",
    )

    def __init__(self, child: ChildPlan, rootfs: str) -> None:
        self.child = child
        self.rootfs = rootfs
        self.clone_flags = 0
        self.owner: int | None = None
        self.join: list[tuple[int, str]] = []
        self.uid_mappings: list[IDMapping] = []
        self.gid_mappings: list[IDMapping] = []
        self.trees: list[Tree] = []
        self.fs_paths: list[str] = []
        self.inner_trees: list[Tree] = []
        self.settings: Sequence[Described] = ()
        self.rlimits: list[tuple[int, str, int, int]] = []
        self.oom_score_adj: int | None = None
        self.oom_score_adj_min: int | None = None
        self.hooks: dict[str, list[Hook]] = {}
        self.net_devices: dict[str, str] = {}
        self.joined_sysctl: list[tuple[int, str, str]] = []
        self.scheduler: Scheduler | None = None
        self.io_priority: IOPriority | None = None
        self.intel_rdt: IntelRdt | None = None
        self.overlay: OverlayTree | None = None
        self.delegate: tuple[int, int] | None = None
        self.seccomp: Filter | None = None

    def describe(self) -> list[str]:
        """One line for each step: the host's before the clone, the clone, the host's after it, then the child's."""
        host = [f"cgroup {setting.describe()}" for setting in self.settings]
        if self.delegate is not None:
            host.append("delegate a cgroup to {}:{}".format(*self.delegate))
        host += [tree.describe() for tree in self.trees]
        host += [f"join the {names(nstype)} namespace {path}" for nstype, path in self.join]
        host += [
            f"set {path.replace('/', '.')} = {value} in the {names(nstype)} namespace"
            for nstype, path, value in self.joined_sysctl
        ]
        host.append(f"clone3 with new namespaces: {names(self.clone_flags) or 'none'}")
        if self.owner is not None:
            host[-1] += f", owned by {self.owner}"
        made = self.clone_flags & CLONE_NEWUSER
        for kind, mappings in (("uid", self.uid_mappings), ("gid", self.gid_mappings)) if made else ():
            host += [f"map {kind} {m['containerID']} {m['hostID']} {m['size']}" for m in mappings]
        if self.oom_score_adj is not None:
            host.append(f"oom_score_adj {self.oom_score_adj}")
        host += [f"rlimit {name} {soft} {hard}" for _, name, soft, hard in self.rlimits]
        host += [f"move network device {old} as {new}" for old, new in self.net_devices.items()]
        for kind in ("prestart", "createRuntime", "startContainer", "poststart"):
            host += [hook.describe() for hook in self.hooks.get(kind, [])]
        return [f"host: {line}" for line in host] + [f"child: {line}" for line in self.child.describe()]

"""Spec to Plan: every decision of a launch that follows from config.json and a few facts. Pure."""

from __future__ import annotations

import os

from sysvisor_runc.child.mounts import MaskPath, ReadonlyPath
from sysvisor_runc.child.nodes import MakeNode, Symlink, WriteFile
from sysvisor_runc.child.plan import ChildPlan, ConsolePlan
from sysvisor_runc.errors import SpecError
from sysvisor_runc.kernel import mount as m
from sysvisor_runc.kernel import namespaces as ns
from sysvisor_runc.plan.devices import device_operations
from sysvisor_runc.plan.mounts import MountPlan, Tree, clean
from sysvisor_runc.plan.namespaces import NAMESPACES
from sysvisor_runc.plan.options import PROPAGATION
from sysvisor_runc.plan.plan import Plan
from sysvisor_runc.plan.process import memory_policy, persona, process_plan, rlimits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.plan.mounts import CgroupView
    from sysvisor_runc.plan.seccomp_cache import Filter
    from sysvisor_runc.spec.types import Hooks, Linux, Process, Spec, TimeOffset
    from sysvisor_runc.syscont.traits import Traits

# Unshared by the child itself: the cgroup namespace after the cgroup is joined (or it would show the caller's path),
# the time namespace because clone3 leaves no moment to write its offsets.
_LATE = ns.CLONE_NEWCGROUP | ns.CLONE_NEWTIME
_HOOK_KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_INACCESSIBLE = {"reg": "f", "dir": "d", "fifo": "p", "sock": "s", "chr": "c", "blk": "b"}


class Facts:
    """What the plan needs to know beside the spec.

    Attributes:
        container_id, bundle: for names and relative paths.
        held: the caller's permitted capabilities; inside a new user namespace every capability of `known` is held.
        known: the capabilities of this kernel as a mask.
        cgroups: where the container's cgroups are, for its cgroup mounts.
        may_mknod: device nodes can be made (no user namespace of the container's or the caller's own).
        no_pivot, no_new_keyring, preserve_fds: flags of the command line.
        own_id: the user on the host that the container's root is, if nobody outside can be that user; else None.
        traits: what the conversion to a system container adds; None without.
        seccomp: the compiled filter.
    """

    __slots__ = (
        "bundle",
        "cgroups",
        "container_id",
        "held",
        "known",
        "may_mknod",
        "no_new_keyring",
        "no_pivot",
        "own_id",
        "preserve_fds",
        "seccomp",
        "traits",
    )

    def __init__(self, container_id: str, bundle: str, cgroups: CgroupView, *, held: int, known: int) -> None:
        self.container_id = container_id
        self.bundle = bundle
        self.cgroups = cgroups
        self.held = held
        self.known = known
        self.may_mknod = True
        self.no_pivot = False
        self.no_new_keyring = False
        self.preserve_fds = 0
        self.own_id: int | None = None
        self.traits: Traits | None = None
        self.seccomp: Filter | None = None


def build(spec: Spec, facts: Facts) -> Plan:
    """The plan for `spec`.

    Raises:
        SpecError: something in it cannot be done.
    """
    process = spec["process"]
    linux = spec.get("linux") or {}
    in_userns = any(n["type"] == "user" for n in linux.get("namespaces") or ())
    child = ChildPlan(process_plan(process, held=facts.known if in_userns else facts.held))
    rootfs = spec["root"]["path"]
    plan = Plan(child, rootfs if rootfs.startswith("/") else os.path.normpath(f"{facts.bundle}/{rootfs}"))
    _namespaces(plan, linux)
    if plan.clone_flags & ns.CLONE_NEWUSER:
        plan.owner = facts.own_id
    _rootfs(plan, spec, linux, facts)
    _process(plan, process, linux, facts)
    _hooks(plan, spec.get("hooks") or {})
    child.hostname = spec.get("hostname") or ""
    child.domainname = spec.get("domainname") or ""
    child.sysctl = [(_sysctl_path(key), value) for key, value in (linux.get("sysctl") or {}).items()]
    foreign = _foreign(plan, facts.traits)
    if foreign:
        from sysvisor_runc.plan.foreign import set_from_host

        set_from_host(plan, foreign, syscont=facts.traits is not None)
    child.no_pivot = facts.no_pivot
    plan.intel_rdt = linux.get("intelRdt")
    plan.net_devices = {name: d.get("name") or name for name, d in (linux.get("netDevices") or {}).items()}
    if process.get("terminal"):
        size = process.get("consoleSize")
        uid = process["user"].get("uid", 0)
        child.console = ConsolePlan(uid, size["height"], size["width"]) if size else ConsolePlan(uid)
    return plan


def _namespaces(plan: Plan, linux: Linux) -> None:
    flags = 0
    for entry in linux.get("namespaces") or ():
        flag, _ = NAMESPACES[entry["type"]]
        path = entry.get("path")
        if path:
            plan.join.append((flag, path))
        else:
            flags |= flag
    # The user namespace comes last: joining the others needs the caller's own privileges.
    plan.join.sort(key=lambda item: item[0] == ns.CLONE_NEWUSER)
    child = plan.child
    plan.clone_flags = flags & ~_LATE
    child.late_namespaces = flags & _LATE
    child.new_mount = bool(flags & ns.CLONE_NEWNS) or any(flag == ns.CLONE_NEWNS for flag, _ in plan.join)
    joined = {flag for flag, _ in plan.join}
    child.new_user = bool((flags | sum(joined)) & ns.CLONE_NEWUSER)
    # Where a user namespace stands between, those who live in the pid namespace cannot look into us anyway, and the
    # right to enter it would be lost on the way.
    child.late_pid = ns.CLONE_NEWPID in joined and not child.new_user
    child.loopback = bool(flags & ns.CLONE_NEWNET)
    if child.new_user:
        plan.uid_mappings = linux.get("uidMappings") or []
        plan.gid_mappings = linux.get("gidMappings") or []
    for clock in ("monotonic", "boottime"):
        offset: TimeOffset | None = (linux.get("timeOffsets") or {}).get(clock)  # type: ignore[assignment]  # key by value
        if offset:
            child.time_offsets.append((clock, offset.get("secs", 0), offset.get("nanosecs", 0)))


def _foreign(plan: Plan, traits: Traits | None) -> int:
    """The joined namespaces that another user namespace than the container's owns, as clone flags."""
    if plan.clone_flags & ns.CLONE_NEWUSER:
        return sum(flag for flag, _ in plan.join)
    return 0 if traits is None else sum(NAMESPACES[kind][0] for kind in traits.foreign)


def _rootfs(plan: Plan, spec: Spec, linux: Linux, facts: Facts) -> None:
    child = plan.child
    requested = PROPAGATION.get(linux.get("rootfsPropagation") or "")
    shared = requested is not None and requested & m.MS_SHARED
    # Trees that the host opens are peers of the host's mounts: cut that, or the container's mounts show up there.
    default = (
        0 if shared else (m.MS_PRIVATE | m.MS_REC if requested == m.MS_PRIVATE | m.MS_REC else m.MS_SLAVE | m.MS_REC)
    )
    mounts = MountPlan(
        facts.bundle, facts.cgroups, mount_label=linux.get("mountLabel") or "", default_propagation=default
    )
    mounts.in_userns = child.new_user
    mounts.rootfs = plan.rootfs.rstrip("/")
    root = _root_tree(plan, facts.traits, default or m.MS_SLAVE)
    child.rootfs = plan.rootfs
    child.rootfs_tree = mounts.tree(root)
    entries = [(mount, f"mounts[{index}]") for index, mount in enumerate(spec.get("mounts") or ())]
    by_daemon = deferred = entries[:0]
    traits = facts.traits
    if traits is not None and traits.fs_mounts:
        from sysvisor_runc.plan.served import split

        entries, by_daemon, deferred = split(entries, traits)
    for mount, where in entries:
        mounts.add(mount, where)
    _devices(plan, mounts, spec, facts)
    if traits is not None and traits.bind_layers:
        from sysvisor_runc.plan.layered import bind_layers

        bind_layers(plan, mounts, traits)
    foreign = _foreign(plan, traits)
    if foreign:
        from sysvisor_runc.plan.foreign import mount_from_host

        mount_from_host(plan, mounts, foreign)
    if traits is not None:
        _interface(mounts, traits)
        if by_daemon:
            from sysvisor_runc.plan.served import add

            plan.fs_paths = add(mounts, by_daemon, deferred, traits)
    child.operations = mounts.operations
    child.finish = [
        *mounts.finish,
        *(ReadonlyPath(path) for path in _once(linux.get("readonlyPaths"))),
        *(MaskPath(path) for path in _once(linux.get("maskedPaths"))),
    ]
    child.root_readonly = spec["root"].get("readonly", False)
    child.root_propagation = requested
    if requested is None and facts.traits is not None:
        # As on a booted machine. Made on top of `default`: what happens inside never gets out.
        child.root_propagation = m.MS_SHARED | m.MS_REC
    plan.trees = mounts.trees
    plan.inner_trees = mounts.inner_trees


def _root_tree(plan: Plan, traits: Traits | None, propagation: int) -> Tree:
    """The root file system, as one mount or as layers."""
    # pivot_root(2) takes no shared mount: the root itself is made shared once it is the root.
    root = Tree(plan.rootfs, recursive=True, where="root.path", propagation=propagation)
    if traits is not None and traits.rootfs_idmap:
        root.idmap = "container"
    if traits is not None and traits.rootfs_layers is not None:
        from sysvisor_runc.plan.layered import of_layers

        if traits.ids is None:
            raise SpecError("root.path", f"{plan.rootfs!r} has no ids that its layers could be mapped to")
        root = plan.overlay = of_layers(plan, root, traits.rootfs_layers, traits.ids[:2])
    return root


def _devices(plan: Plan, mounts: MountPlan, spec: Spec, facts: Facts) -> None:
    """The nodes of /dev, unless /dev is all somebody else's."""
    child = plan.child
    if not (child.new_mount or mounts.operations) or mounts.has_dev_bind:
        return
    covered = {clean(mount["destination"]) for mount in spec.get("mounts") or ()}
    devices = (spec.get("linux") or {}).get("devices") or []
    bind = child.new_user or not facts.may_mknod
    mounts.operations += device_operations(devices, bind=bind, mounted=covered)
    if facts.traits is not None and facts.traits.host_nodes and plan.uid_mappings:
        from sysvisor_runc.plan.nodes import make_on_host

        make_on_host(mounts, plan.uid_mappings, plan.gid_mappings)


def _once(paths: list[str] | None) -> list[str]:
    """Each path once: a second mount over the first would hide nothing more."""
    return list(dict.fromkeys(clean(path) for path in paths or ()))


def _interface(mounts: MountPlan, traits: Traits) -> None:
    """What a system container's init finds under /run: https://systemd.io/CONTAINER_INTERFACE."""
    for path, text in traits.run_host_files.items():
        mounts.operations.append(WriteFile(path, text.encode()))
    for path, kind in traits.run_host_nodes.items():
        mounts.operations.append(MakeNode(path, _INACCESSIBLE[kind]))
    for path, target in traits.links.items():
        mounts.operations.append(Symlink(target, path))
    if traits.credentials_dir:
        for name, data in traits.credentials.items():
            mounts.operations.append(WriteFile(f"{traits.credentials_dir}/{name}", data, 0o400))


def _process(plan: Plan, process: Process, linux: Linux, facts: Facts) -> None:
    target = plan.child.process
    target.preserve_fds = facts.preserve_fds
    target.seccomp = facts.seccomp
    plan.seccomp = facts.seccomp
    if not facts.no_new_keyring:
        target.keyring = f"_ses.{facts.container_id}"
    personality = linux.get("personality")
    if personality:
        target.personality = persona(personality)
    policy = linux.get("memoryPolicy")
    if policy:
        target.memory_policy = memory_policy(policy)
    plan.oom_score_adj = process.get("oomScoreAdj")
    if facts.traits is not None:
        plan.oom_score_adj_min = facts.traits.oom_score_adj_min
    plan.rlimits = target.rlimits = rlimits(process)
    plan.scheduler = process.get("scheduler")
    plan.io_priority = process.get("ioPriority")


def _hooks(plan: Plan, hooks: Hooks) -> None:
    plan.hooks = {kind: [] for kind in _HOOK_KINDS}
    if not hooks:
        return
    from sysvisor_runc.plan.hooks import parse_hooks

    for kind in _HOOK_KINDS:
        plan.hooks[kind] = parse_hooks(hooks, kind)
    plan.child.runtime_hooks = bool(plan.hooks["prestart"] or plan.hooks["createRuntime"])
    plan.child.container_hooks = plan.hooks["createContainer"]


def _sysctl_path(key: str) -> str:
    """`net.ipv4.conf.eth0/1.rp_filter` style keys: whichever of `.` and `/` comes first separates (sysctl.d(5))."""
    dot, slash = key.find("."), key.find("/")
    path = key if slash >= 0 and (dot < 0 or slash < dot) else key.translate({ord("."): "/", ord("/"): "."})
    if not all(part.strip(".") for part in path.split("/")):
        raise SpecError("linux.sysctl", f"{key!r} names no file below /proc/sys")
    return path

"""The mounts of config.json as operations, and the trees that the host opens for them. Pure."""

from __future__ import annotations

import os

from sysvisor_runc.child.mounts import Attributes, BindMount, FilesystemMount, Remount
from sysvisor_runc.child.nodes import Symlink
from sysvisor_runc.errors import SpecError
from sysvisor_runc.kernel import mount as m
from sysvisor_runc.plan.options import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysvisor_runc.child.mounts import Operation
    from sysvisor_runc.plan.options import MountOptions
    from sysvisor_runc.spec.types import IDMapping, Mount

CGROUP_ROOT = "/sys/fs/cgroup"

# What may be mounted over in /proc: files that daemons such as lxcfs and sysvisor-fs stand in for.
_PROC_FILES = (
    "cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev",
    "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled",
)  # fmt: skip


class Tree:
    """A mount that the host opens for the child, detached, before it clones.

    Attributes:
        path: on the host.
        recursive: with what is mounted below.
        idmap: "" for none, "container" for the container's user namespace, "own" for `uid_mappings`/`gid_mappings`.
        idmap_tree: ID-map the mounts below as well.
        propagation: set on the whole tree, so that nothing the container mounts shows on the host.
        where: the JSON path, for an error.
        attributes: of a bind mount, which a container in a user namespace must not clear; None for what is no bind.
    """

    __slots__ = (
        "attributes",
        "gid_mappings",
        "idmap",
        "idmap_tree",
        "path",
        "propagation",
        "recursive",
        "uid_mappings",
        "where",
    )

    def __init__(self, path: str, *, recursive: bool, where: str, idmap: str = "", propagation: int = 0) -> None:
        self.path = path
        self.attributes: Attributes | None = None
        self.recursive = recursive
        self.where = where
        self.idmap = idmap
        self.idmap_tree = False
        self.propagation = propagation
        self.uid_mappings: Sequence[IDMapping] = ()
        self.gid_mappings: Sequence[IDMapping] = ()

    def describe(self) -> str:
        idmap = {"": "", "container": " id-mapped to the container", "own": " id-mapped as given"}[self.idmap]
        return f"open tree {self.path}{' with submounts' if self.recursive else ''}{idmap}"


class CgroupView:
    """What the mount planner knows of the cgroups.

    Attributes:
        v1: (directory name, controllers, the container's path) of each v1 hierarchy.
        unified: the container's path in cgroup2, "" where the host has none.
        hybrid: v1 controllers with a cgroup2 beside them.
        namespace: the container has a cgroup namespace of its own.
    """

    __slots__ = ("hybrid", "namespace", "unified", "v1")

    def __init__(self, v1: Sequence[tuple[str, Sequence[str], str]], unified: str, *, namespace: bool) -> None:
        self.v1 = tuple(v1)
        self.unified = unified
        self.hybrid = bool(v1 and unified)
        self.namespace = namespace


class MountPlan:
    """Collects operations and trees while the mounts are walked in order.

    Attributes:
        in_userns: for a user namespace.
        rootfs: the path of the root file system on the host; what lies below is opened by the child, in turn with the
            mounts that are made there, its ID mapping is in `inner_trees`.
    """

    def __init__(self, bundle: str, cgroups: CgroupView, *, mount_label: str, default_propagation: int) -> None:
        self.bundle = bundle
        self.cgroups = cgroups
        self.mount_label = mount_label
        self.default_propagation = default_propagation
        self.in_userns = False
        self.rootfs = ""
        self.inner_trees: list[Tree] = []
        self.operations: list[Operation] = []
        self.finish: list[Operation] = []
        self.trees: list[Tree] = []
        self.has_dev_bind = False

    def tree(self, tree: Tree) -> int:
        """Register `tree` and return its number."""
        self.trees.append(tree)
        return len(self.trees) - 1

    def add(self, mount: Mount, where: str) -> None:
        """Plan one entry of `mounts`; `where` is its JSON path."""
        destination = clean(mount["destination"])
        destination = self._inside(destination) or destination  # as with runc, the path on the host does as well
        options = parse(mount.get("options") or ())
        kind = mount.get("type") or ""
        if options.remount:
            self.operations.append(Remount(destination, options.attributes))
        elif options.bind or kind == "bind":
            self._bind(mount, destination, options, where)
        elif kind in ("cgroup", "cgroup2"):
            self._cgroup(destination, options, kind)
        else:
            self._filesystem(mount, destination, options, kind, where)

    def _bind(self, mount: Mount, destination: str, options: MountOptions, where: str) -> None:
        if options.data:
            words = ",".join(k if v is None else f"{k}={v}" for k, v in options.data)
            raise SpecError(
                f"{where}.options", f"bind mounts cannot have any filesystem-specific options applied: {words}"
            )
        check_destination(destination, f"{where}.destination", is_procfs=False, is_bind=True)
        source = mount.get("source") or ""
        if not source:
            raise SpecError(f"{where}.source", "a bind mount needs a source")
        source = source if source.startswith("/") else os.path.join(self.bundle, source)
        if destination == "/dev":
            self.has_dev_bind = True
        tree = Tree(source, recursive=options.recursive, where=where, propagation=self.default_propagation)
        tree.attributes = options.attributes
        self._idmap(tree, mount, options)
        inside = self._inside(os.path.normpath(source))
        if inside:
            number = len(self.inner_trees)
            self.inner_trees.append(tree)
        else:
            number = self.tree(tree)
        label = {"": "", "container": "id-mapped", "own": "id-mapped"}[tree.idmap]
        self.operations.append(
            BindMount(
                number,
                source,
                destination,
                recursive=options.recursive,
                attributes=options.attributes,
                idmap=label,
                locked=self.in_userns,
                inside=inside,
            )
        )

    def _inside(self, path: str) -> str:
        """`path` of the host as the container sees it, "" where it is not below the root file system."""
        return path[len(self.rootfs) :] if self.rootfs and path.startswith(f"{self.rootfs}/") else ""

    def _idmap(self, tree: Tree, mount: Mount, options: MountOptions) -> None:
        uids, gids = mount.get("uidMappings") or (), mount.get("gidMappings") or ()
        if not (options.idmap or uids or gids):
            return
        tree.idmap = "own" if uids or gids else "container"
        tree.uid_mappings, tree.gid_mappings = uids, gids
        tree.idmap_tree = options.idmap == "ridmap"

    def _filesystem(self, mount: Mount, destination: str, options: MountOptions, kind: str, where: str) -> None:
        if not kind:
            raise SpecError(f"{where}.type", "missing, and the options say neither bind nor rbind")
        if options.copy_up and kind != "tmpfs":
            raise SpecError(f"{where}.options", f"tmpcopyup is for tmpfs, not {kind}")
        check_destination(destination, f"{where}.destination", is_procfs=kind == "proc")
        attributes = options.attributes
        if kind == "tmpfs" and attributes.set & m.MOUNT_ATTR_RDONLY:
            # Devices and mount points are still to be made in it.
            attributes.set &= ~m.MOUNT_ATTR_RDONLY
            self.finish.append(Remount(destination, Attributes(set=m.MOUNT_ATTR_RDONLY)))
        data = list(options.data)
        if self.mount_label and kind in ("tmpfs", "mqueue", "devpts", "overlay"):
            data.append(("context", self.mount_label))
        source = mount.get("source") or kind
        if source.startswith("/dev/") and attributes.set & m.MOUNT_ATTR_RDONLY:
            data.append(("ro", None))
        self.operations.append(
            FilesystemMount(
                kind,
                source,
                destination,
                attributes=attributes,
                options=data,
                ordinary=kind in ("proc", "sysfs"),
                keep="devpts" if kind == "devpts" and destination == "/dev/pts" else "",
                copy_up=options.copy_up,
            )
        )

    def _cgroup(self, destination: str, options: MountOptions, kind: str) -> None:
        """`cgroup` means whatever layout the host has: one cgroup2, or a tmpfs with a directory per v1 hierarchy."""
        attributes = options.attributes
        if not self.cgroups.v1 or kind == "cgroup2":
            self._cgroup_hierarchy("cgroup2", destination, (), self.cgroups.unified, attributes)
            return
        readonly = attributes.set & m.MOUNT_ATTR_RDONLY
        top = Attributes(m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC)
        self.operations.append(
            FilesystemMount("tmpfs", "tmpfs", destination, attributes=top, options=(("mode", "755"),))
        )
        for name, controllers, path in self.cgroups.v1:
            data = [(c, None) if not c.startswith("name=") else ("name", c[5:]) for c in controllers]
            self._cgroup_hierarchy("cgroup", f"{destination}/{name}", data, path, attributes)
            for controller in controllers:
                if controller != name and not controller.startswith("name="):
                    self.operations.append(Symlink(name, f"{destination}/{controller}"))
        if self.cgroups.hybrid:
            self._cgroup_hierarchy("cgroup2", f"{destination}/unified", (), self.cgroups.unified, attributes)
        if readonly:
            self.operations.append(Remount(destination, Attributes(set=readonly)))

    def _cgroup_hierarchy(
        self,
        fstype: str,
        destination: str,
        data: Sequence[tuple[str, str | None]],
        path: str,
        attributes: Attributes,
    ) -> None:
        """In a cgroup namespace a new mount shows the container's cgroup as the root; else a bind of it does.

        On pure v2 a container that shares the caller's cgroup namespace sees all that is in there, as with runc, if it
        may only look: writable, it gets its own cgroup. One with a user namespace may not mount it at all.
        """
        readonly = attributes.set & m.MOUNT_ATTR_RDONLY
        shared_v2 = bool(readonly) and not self.cgroups.v1 and not self.in_userns
        if self.cgroups.namespace or shared_v2 or not path:
            self.operations.append(FilesystemMount(fstype, fstype, destination, attributes=attributes, options=data))
            return
        tree = Tree(path, recursive=False, where="mounts", propagation=self.default_propagation)
        tree.attributes = attributes
        number = self.tree(tree)
        self.operations.append(BindMount(number, path, destination, recursive=False, attributes=attributes))


def clean(path: str) -> str:
    """`path` absolute and without `.`, `..` and doubled slashes; relative ones start at the root, as runc has it."""
    return os.path.normpath("/" + path.lstrip("/"))


def check_destination(destination: str, where: str, *, is_procfs: bool, is_bind: bool = False) -> None:
    """Refuse mounts over procfs that could feed writes of ours, or of the container's tools, to the wrong file.

    What a bind mount over /proc itself shows, the child looks at when it has it open.

    Raises:
        SpecError: `destination` is /proc itself (and the mount is no procfs), or below it and not a known stand-in.
    """
    if destination == "/":
        raise SpecError(where, "cannot mount over the root of the container")
    if destination == "/proc" and not (is_procfs or is_bind):
        raise SpecError(where, f"{destination!r} cannot be mounted because it is not of type proc")
    if not destination.startswith("/proc/") or is_procfs:
        return
    below = destination[len("/proc/") :]
    if below not in _PROC_FILES and not below.startswith(("sys/", "fs/")) and below != "sys":
        raise SpecError(where, f"{destination!r} cannot be mounted because it is inside /proc")

"""The operations that furnish a root file system: values that can describe themselves and execute.

`plan/` makes and orders them, the child executes them in order on a `Rootfs`. They decide nothing. Destinations are
reached through child.paths only, sources through descriptors or through the old root. May import kernel and child.
"""

from __future__ import annotations

import os
import stat

from sysvisor_runc.child import paths
from sysvisor_runc.child.channel import IDMAP
from sysvisor_runc.kernel import mount as m
from sysvisor_runc.kernel.statfs import PROC_SUPER_MAGIC, fstatfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    class Operation(Protocol):
        """What the plan is made of."""

        def describe(self) -> str: ...
        def execute(self, rootfs: Rootfs) -> None: ...


def _nobody_to_ask(kind: bytes, text: str) -> None:
    raise OSError(1, "there is no host to ask")


class Rootfs:
    """What operations work on.

    Attributes:
        root: the root directory (O_PATH), its mount attached in this mount namespace.
        proc: a private procfs of the container's pid namespace, never reachable by path; -1 where there is none.
        trees: detached mounts that the host opened, by the number that the plan gave them.
        kept: mounts that a later operation or the child refers to by name ("devpts").
        pid_ns: the pid namespace that the container's procfs shows, where that is not ours; -1: ours.
        devnull: /dev/null of the host (O_PATH), verified; -1 until needed.
        ask_host: sends the host a message and waits until it has done what that asks for.
        fs_socket: where the mounts of sysvisor-fs come in; -1: none will.
    """

    __slots__ = ("ask_host", "devnull", "fs_socket", "kept", "pid_ns", "proc", "root", "trees")

    def __init__(self, root: int, proc: int, trees: dict[int, int], pid_ns: int = -1) -> None:
        self.pid_ns = pid_ns
        self.root = root
        self.proc = proc
        self.trees = trees
        self.kept: dict[str, int] = {}
        self.devnull = -1
        self.fs_socket = -1
        self.ask_host: Callable[[bytes, str], None] = _nobody_to_ask

    def null_device(self) -> int:
        """The host's /dev/null, proved to be the character device 1:3 (CVE-2025-31133 swapped the container's)."""
        if self.devnull < 0:
            fd = os.open("/dev/null", os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
            status = os.fstat(fd)
            if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):
                os.close(fd)
                raise OSError(19, os.strerror(19), "/dev/null")  # ENODEV
            self.devnull = fd
        return self.devnull


class Attributes:
    """Mount attributes as mount_setattr(2) takes them: what to set and clear on the mount, and on the whole tree."""

    __slots__ = ("clear", "clear_tree", "propagation", "set", "set_tree")

    def __init__(
        self,
        set: int = 0,  # noqa: A002  # with `clear`, the words of mount_setattr(2)
        clear: int = 0,
        set_tree: int = 0,
        clear_tree: int = 0,
        propagation: Sequence[int] = (),
    ) -> None:
        self.set = set
        self.clear = clear
        self.set_tree = set_tree
        self.clear_tree = clear_tree
        self.propagation = tuple(propagation)

    def describe(self) -> str:
        """The attributes as words, empty where there are none."""
        words = [name for bit, name in _ATTRIBUTE_NAMES if self.set & bit]
        words += ["no-" + name for bit, name in _ATTRIBUTE_NAMES if self.clear & bit]
        words += ["tree-" + name for bit, name in _ATTRIBUTE_NAMES if self.set_tree & bit]
        words += ["tree-no-" + name for bit, name in _ATTRIBUTE_NAMES if self.clear_tree & bit]
        words += [propagation_name(p) for p in self.propagation]
        return f" [{' '.join(words)}]" if words else ""

    def for_bind(self, tree: int, *, locked: bool) -> Attributes:
        """The same for a bind of `tree`, whose own flags count; see child.bindflags."""
        if not (self.set or self.clear):
            return self
        from sysvisor_runc.child.bindflags import resolve  # loaded before the seal

        add, remove = resolve(tree, self.set, self.clear, locked=locked)
        return Attributes(add, remove, self.set_tree, self.clear_tree)

    def apply(self, tree: int, operand: str) -> None:
        """Set them on the mount `tree`; propagation is separate, since it may have to wait for the mount's place."""
        if self.set_tree or self.clear_tree:
            _setattr(tree, m.AT_RECURSIVE, self.set_tree, self.clear_tree, operand)
        if self.set or self.clear:
            _setattr(tree, 0, self.set, self.clear, operand)

    def apply_propagation(self, tree: int, operand: str) -> None:
        for value in self.propagation:
            recursive = m.AT_RECURSIVE if value & m.MS_REC else 0
            flags = m.AT_EMPTY_PATH | recursive
            m.mount_setattr(tree, "", flags, propagation=value & ~m.MS_REC, operand=operand)


_ATTRIBUTE_NAMES = (
    (m.MOUNT_ATTR_RDONLY, "ro"),
    (m.MOUNT_ATTR_NOSUID, "nosuid"),
    (m.MOUNT_ATTR_NODEV, "nodev"),
    (m.MOUNT_ATTR_NOEXEC, "noexec"),
    (m.MOUNT_ATTR_NOATIME, "noatime"),
    (m.MOUNT_ATTR_STRICTATIME, "strictatime"),
    (m.MOUNT_ATTR_NODIRATIME, "nodiratime"),
    (m.MOUNT_ATTR_NOSYMFOLLOW, "nosymfollow"),
)
_PROPAGATION_NAMES = {
    m.MS_SHARED: "shared",
    m.MS_SLAVE: "slave",
    m.MS_PRIVATE: "private",
    m.MS_UNBINDABLE: "unbindable",
}


def propagation_name(value: int) -> str:
    """`rslave` for MS_SLAVE|MS_REC, and so on."""
    return ("r" if value & m.MS_REC else "") + _PROPAGATION_NAMES.get(value & ~m.MS_REC, hex(value))


def _setattr(tree: int, flags: int, attr_set: int, attr_clr: int, operand: str) -> None:
    if (attr_set | attr_clr) & (m.MOUNT_ATTR__ATIME):
        attr_clr |= m.MOUNT_ATTR__ATIME  # the atime modes exclude each other: the kernel wants the field cleared first
    m.mount_setattr(tree, "", flags | m.AT_EMPTY_PATH, attr_set=attr_set, attr_clr=attr_clr, operand=operand)


def attach(tree: int, destination: int, operand: str) -> None:
    """Mount the detached `tree` on the open path `destination`."""
    flags = m.MOVE_MOUNT_F_EMPTY_PATH | m.MOVE_MOUNT_T_EMPTY_PATH
    m.move_mount(tree, "", destination, "", flags, operand=operand)


def refuse_proc(rootfs: Rootfs, destination: int, path: str) -> None:
    """Refuse the open `destination` where a link has led `path` into the container's procfs; the plan, which judges
    paths below /proc, cannot see that (CVE-2019-16884, CVE-2025-52881). Raises OSError.
    """
    if f"{path}/".startswith("/proc/") or fstatfs(destination) != PROC_SUPER_MAGIC:
        return
    try:
        proc = paths.open_in_root(rootfs.root, "/proc")
    except FileNotFoundError:
        return
    try:
        # Another procfs, such as the host's bound to a place of its own, nobody takes for the container's.
        if os.fstat(proc).st_dev == os.fstat(destination).st_dev:
            raise OSError(22, f"{path!r} cannot be mounted because it is inside /proc")
    finally:
        os.close(proc)


class BindMount:
    """Show a tree of the host, opened beforehand as number `tree`, at `destination`.

    `locked`: the flags that the host's mount has are not to be taken away. `inside`: the source is this path of the
    container's, with what is mounted there by now; `tree` then numbers what the host ID-maps for us.
    """

    __slots__ = ("attributes", "destination", "idmap", "inside", "locked", "recursive", "source", "tree")

    def __init__(
        self,
        tree: int,
        source: str,
        destination: str,
        *,
        recursive: bool,
        attributes: Attributes,
        idmap: str = "",
        locked: bool = False,
        inside: str = "",
    ) -> None:
        self.tree = tree
        self.source = source
        self.destination = destination
        self.recursive = recursive
        self.attributes = attributes
        self.idmap = idmap
        self.locked = locked
        self.inside = inside

    def describe(self) -> str:
        verb = "rbind" if self.recursive else "bind"
        idmap = f" {self.idmap}" if self.idmap else ""
        return f"{verb} {self.source} -> {self.destination}{idmap}{self.attributes.describe()}"

    def execute(self, rootfs: Rootfs) -> None:
        tree = self._open_inside(rootfs) if self.inside else rootfs.trees[self.tree]
        if self.destination == "/proc" and fstatfs(tree) != PROC_SUPER_MAGIC:
            # A directory of the container's choosing would be taken for procfs (CVE-2019-16884).
            raise OSError(22, f"{self.destination!r} cannot be mounted because it is not of type proc")
        self.attributes.for_bind(tree, locked=self.locked).apply(tree, self.destination)
        if stat.S_ISDIR(os.fstat(tree).st_mode):
            destination = paths.make_directory(rootfs.root, self.destination)
        else:
            destination = paths.make_file(rootfs.root, self.destination)
        try:
            refuse_proc(rootfs, destination, self.destination)
            attach(tree, destination, self.destination)
        finally:
            os.close(destination)
        self.attributes.apply_propagation(tree, self.destination)

    def _open_inside(self, rootfs: Rootfs) -> int:
        fd = paths.open_in_root(rootfs.root, self.inside)
        try:
            flags = m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC | m.AT_EMPTY_PATH
            tree = m.open_tree(fd, "", flags | (m.AT_RECURSIVE if self.recursive else 0))
        finally:
            os.close(fd)
        if self.idmap:
            rootfs.ask_host(IDMAP, f"{tree} {self.tree}")
        return tree


class FilesystemMount:
    """Mount a new instance of a file system at `destination`.

    Attributes:
        options: file system parameters in order, `(key, None)` for a flag.
        ordinary: the destination must be a directory with no symbolic link on the way (procfs and sysfs).
        keep: a name under which later steps find the mount.
        copy_up: fill a tmpfs with what the directory below holds (the option `tmpcopyup`).
    """

    __slots__ = ("attributes", "copy_up", "destination", "fstype", "keep", "mode", "options", "ordinary", "source")

    def __init__(
        self,
        fstype: str,
        source: str,
        destination: str,
        *,
        attributes: Attributes,
        options: Sequence[tuple[str, str | None]] = (),
        ordinary: bool = False,
        keep: str = "",
        copy_up: bool = False,
        mode: int = 0o755,
    ) -> None:
        self.fstype = fstype
        self.source = source
        self.destination = destination
        self.attributes = attributes
        self.options = tuple(options)
        self.ordinary = ordinary
        self.keep = keep
        self.copy_up = copy_up
        self.mode = mode

    def describe(self) -> str:
        options = ",".join(k if v is None else f"{k}={v}" for k, v in self.options)
        extra = f" {options}" if options else ""
        copy_up = " copying up" if self.copy_up else ""
        return f"mount {self.fstype} on {self.destination}{extra}{copy_up}{self.attributes.describe()}"

    def execute(self, rootfs: Rootfs) -> None:
        covers = self.fstype != "tmpfs" or _exists(rootfs.root, self.destination)
        destination = self._destination(rootfs)
        try:
            refuse_proc(rootfs, destination, self.destination)
            options = self._options(destination) if covers else list(self.options)
            if any(v is not None and len(os.fsencode(v)) > m.FSCONFIG_STRING_MAX for _, v in options):
                tree = self._mount_by_path(destination, options)
                self.attributes.apply(tree, self.destination)
            else:
                pid_ns = rootfs.pid_ns if self.fstype == "proc" else -1
                tree = new_mount(self.fstype, self.source, options, self.destination, pid_ns=pid_ns)
                if self.copy_up:
                    _copy_up(destination, tree)
                self.attributes.apply(tree, self.destination)
                attach(tree, destination, self.destination)
        finally:
            os.close(destination)
        self.attributes.apply_propagation(tree, self.destination)
        if self.keep:
            rootfs.kept[self.keep] = tree
        else:
            os.close(tree)

    def _destination(self, rootfs: Rootfs) -> int:
        if not self.ordinary:
            return paths.make_directory(rootfs.root, self.destination, self.mode)
        try:
            return paths.open_no_symlinks(rootfs.root, self.destination, os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in (paths.ELOOP, paths.ENOTDIR):
                problem = f"filesystem {self.fstype!r} must be mounted on ordinary directory"
                raise OSError(error.errno, problem, self.destination) from None
            if error.errno != paths.ENOENT:
                raise
        os.close(paths.make_directory(rootfs.root, self.destination, self.mode))
        return paths.open_no_symlinks(rootfs.root, self.destination, os.O_PATH | os.O_DIRECTORY)

    def _options(self, destination: int) -> list[tuple[str, str | None]]:
        """A tmpfs takes the mode of the directory it covers unless told otherwise, as with runc.

        One that was made for it has none to give: the file system's own default stands, 1777.
        """
        options = list(self.options)
        if self.fstype == "tmpfs" and not any(key == "mode" for key, _ in options):
            options.append(("mode", f"{stat.S_IMODE(os.fstat(destination).st_mode):o}"))
        return options

    def _mount_by_path(self, destination: int, options: list[tuple[str, str | None]]) -> int:
        """mount(2) on the current directory: for values that fsconfig(2) is too short for (overlay's lowerdir)."""
        data = ",".join(k if v is None else f"{k}={v}" for k, v in options)
        os.fchdir(destination)
        m.mount(self.source, ".", self.fstype, 0, data)
        os.chdir("/")
        return paths.open_in_root(destination, ".", os.O_PATH | os.O_DIRECTORY)


def clone_tree(path: str, *, recursive: bool, propagation: int) -> int:
    """A detached clone of the mount at `path`, close-on-exec. Raises OSError."""
    flags = m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC | (m.AT_RECURSIVE if recursive else 0)
    fd = m.open_tree(m.AT_FDCWD, path, flags)
    if propagation:
        below = m.AT_RECURSIVE if propagation & m.MS_REC else 0
        m.mount_setattr(fd, "", m.AT_EMPTY_PATH | below, propagation=propagation & ~m.MS_REC)
    return fd


def new_mount(
    fstype: str, source: str, options: Sequence[tuple[str, str | None]], operand: str, *, pid_ns: int = -1
) -> int:
    """A detached mount of a new `fstype`; an error carries what the kernel logged on the context.

    `pid_ns` is the namespace that a procfs shows instead of ours (Linux 6.18).
    """
    context = m.fsopen(fstype)
    try:
        if pid_ns >= 0:
            m.fsconfig(context, m.FSCONFIG_SET_FD, "pidns", None, pid_ns)
        if source:
            m.fsconfig(context, m.FSCONFIG_SET_STRING, "source", source)
        for key, value in options:
            command = m.FSCONFIG_SET_FLAG if value is None else m.FSCONFIG_SET_STRING
            m.fsconfig(context, command, key, value)
        m.fsconfig(context, m.FSCONFIG_CMD_CREATE)
        return m.fsmount(context, operand=operand)
    except OSError as error:
        said = m.fs_log(context)
        if said:
            error.strerror = f"{error.strerror} ({said})"
        raise
    finally:
        os.close(context)


def _exists(root: int, path: str) -> bool:
    try:
        os.close(paths.open_in_root(root, path))
    except OSError:
        return False
    return True


def _copy_up(source: int, tree: int) -> None:
    """Copy the directory `source` into the new tmpfs `tree`, with owners, modes and links."""
    from sysvisor_runc.child.copy import copy_tree

    copy_tree(source, tree)


class Remount:
    """Set attributes on the mount at `path` once what had to be made below it is there."""

    __slots__ = ("attributes", "path")

    def __init__(self, path: str, attributes: Attributes) -> None:
        self.path = path
        self.attributes = attributes

    def describe(self) -> str:
        return f"remount {self.path}{self.attributes.describe()}"

    def execute(self, rootfs: Rootfs) -> None:
        fd = paths.open_in_root(rootfs.root, self.path)
        try:
            self.attributes.apply(fd, self.path)
            self.attributes.apply_propagation(fd, self.path)
        finally:
            os.close(fd)


class MaskPath:
    """Hide `path`: a file under the null device, a directory under an empty read-only tmpfs; absent ones are fine."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def describe(self) -> str:
        return f"mask {self.path}"

    def execute(self, rootfs: Rootfs) -> None:
        try:
            destination = paths.open_in_root(rootfs.root, self.path)
        except OSError as error:
            if error.errno in (paths.ENOENT, paths.ENOTDIR):
                return
            raise
        try:
            if stat.S_ISDIR(os.fstat(destination).st_mode):
                self._mask_directory(rootfs, destination)
                return
            null = rootfs.null_device()
            tree = m.open_tree(null, "", m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC | m.AT_EMPTY_PATH)
            try:
                attach(tree, destination, self.path)
            finally:
                os.close(tree)
        finally:
            os.close(destination)

    def _mask_directory(self, rootfs: Rootfs, destination: int) -> None:
        """One tmpfs serves every masked directory: a super block costs 0.1 ms and memory, a clone next to nothing.

        The first one is attached itself, since only an attached mount can be cloned before Linux 6.15.
        """
        first = rootfs.kept.get("mask")
        if first is None:
            first = new_mount("tmpfs", "tmpfs", (("nr_inodes", "1"), ("mode", "755")), self.path)
            _setattr(first, 0, m.MOUNT_ATTR_RDONLY, 0, self.path)
            attach(first, destination, self.path)
            rootfs.kept["mask"] = first
            return
        tree = m.open_tree(first, "", m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC | m.AT_EMPTY_PATH)
        try:
            attach(tree, destination, self.path)
        finally:
            os.close(tree)


class ReadonlyPath:
    """Make the tree at `path` read-only by a bind of it onto itself; an absent one is fine."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def describe(self) -> str:
        return f"readonly {self.path}"

    def execute(self, rootfs: Rootfs) -> None:
        try:
            destination = paths.open_in_root(rootfs.root, self.path)
        except OSError as error:
            if error.errno in (paths.ENOENT, paths.ENOTDIR):
                return
            raise
        try:
            flags = m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC | m.AT_EMPTY_PATH | m.AT_RECURSIVE
            tree = m.open_tree(destination, "", flags)
            try:
                _setattr(tree, 0, m.MOUNT_ATTR_RDONLY, 0, self.path)
                attach(tree, destination, self.path)
            finally:
                os.close(tree)
        finally:
            os.close(destination)

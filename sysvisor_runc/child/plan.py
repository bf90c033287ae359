"""What the child is told to do: plain values that the plan layer fills in and that describe themselves.

May import kernel and child. Nothing here decides or executes.
"""

from __future__ import annotations

from sysvisor_runc.kernel.namespaces import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from sysvisor_runc.child.hook import Hook
    from sysvisor_runc.child.identity import Identity
    from sysvisor_runc.child.mounts import Operation
    from sysvisor_runc.child.rootless import OwnTree

    class SeccompFilter(Protocol):
        """The filter as bytes, the flags to load it with, and whether loading gives a listener."""

        @property
        def bpf(self) -> bytes: ...
        @property
        def flags(self) -> int: ...
        @property
        def notify(self) -> bool: ...
        @property
        def may_fork(self) -> bool: ...


class ProcessPlan:
    """The user's program and how it starts.

    Attributes:
        args, env: as in config.json; `home_from_passwd` adds HOME from the rootfs where env has none.
        cwd: working directory inside the root file system, made where missing.
        umask: None keeps 0o022.
        personality: persona number or None.
        memory_policy: (mode with flags, node mask as bytes, number of nodes) or None.
        preserve_fds: how many descriptors after stderr go to the program.
        apparmor, selinux: label for the program's execve, empty for none.
        keyring: name of the session keyring to join, empty for none.
        affinity: the CPUs that the program runs on, None for all.
        rlimits: (resource, name, soft, hard), set last: what a program may have can be too little for us.
    """

    __slots__ = (
        "affinity",
        "apparmor",
        "args",
        "cwd",
        "env",
        "identity",
        "keyring",
        "memory_policy",
        "personality",
        "preserve_fds",
        "rlimits",
        "seccomp",
        "selinux",
        "umask",
    )

    def __init__(self, args: Sequence[str], env: Sequence[str], cwd: str, identity: Identity) -> None:
        self.args = list(args)
        self.env = list(env)
        self.cwd = cwd
        self.identity = identity
        self.umask: int | None = None
        self.personality: int | None = None
        self.memory_policy: tuple[int, bytes, int] | None = None
        self.preserve_fds = 0
        self.apparmor = ""
        self.selinux = ""
        self.keyring = ""
        self.seccomp: SeccompFilter | None = None
        self.affinity: list[int] | None = None
        self.rlimits: list[tuple[int, str, int, int]] = []

    def describe(self) -> list[str]:
        """One line for each thing that happens, in order."""
        lines = []
        if self.keyring:
            lines.append(f"join session keyring {self.keyring}")
        if self.personality is not None:
            lines.append(f"personality {self.personality:#x}")
        if self.memory_policy is not None:
            lines.append(f"memory policy {self.memory_policy[0]:#x}")
        if self.umask is not None:
            lines.append(f"umask {self.umask:04o}")
        if self.identity.capabilities is not None:
            lines.append(self.identity.capabilities.describe())
        lines.append(self.identity.describe())
        if self.identity.no_new_privs:
            lines.append("no new privileges")
        lines.append(f"chdir {self.cwd}")
        if self.apparmor:
            lines.append(f"apparmor profile {self.apparmor}")
        if self.selinux:
            lines.append(f"selinux label {self.selinux}")
        if self.seccomp is not None:
            lines.append(f"seccomp filter of {len(self.seccomp.bpf) // 8} instructions, flags {self.seccomp.flags:#x}")
        lines.append("execve " + " ".join(self.args))
        return lines


class ConsolePlan:
    """A pseudo-terminal: owner inside the container, and its size in characters (0: the caller's or the default)."""

    __slots__ = ("height", "uid", "width")

    def __init__(self, uid: int, height: int = 0, width: int = 0) -> None:
        self.uid = uid
        self.height = height
        self.width = width


class ChildPlan:
    """Everything that happens between clone3 and execve.

    Attributes:
        new_user: the child got a new user namespace and waits for its id maps.
        late_namespaces: flags unshared after the cgroup is joined (CLONE_NEWCGROUP, CLONE_NEWTIME).
        time_offsets: lines for /proc/self/timens_offsets: (clock, seconds, nanoseconds).
        late_pid: a pid namespace is joined, with processes that may have every right over ours: the child stays out of
            it and only the last stage, which has given up its privileges by then, forks into it.
        new_mount: a mount namespace of its own; without it the root is changed by chroot, and mounts stay.
        rootfs: path of the root file system on the host.
        rootfs_tree: number of the detached tree that becomes the root.
        operations: furnish the root file system, before the pivot.
        finish: operations after the pivot: read-only and masked paths.
        root_readonly, root_propagation: applied to the new root at the end.
        loopback: bring `lo` up in the new network namespace.
        sysctl: (path below /proc/sys, value).
        own_trees: detached mounts that the child opens itself, for a caller without privileges.
    """

    __slots__ = (
        "console",
        "container_hooks",
        "domainname",
        "finish",
        "hostname",
        "late_namespaces",
        "late_pid",
        "loopback",
        "new_mount",
        "new_user",
        "no_pivot",
        "operations",
        "own_trees",
        "process",
        "root_propagation",
        "root_readonly",
        "rootfs",
        "rootfs_tree",
        "runtime_hooks",
        "sysctl",
        "time_offsets",
    )

    def __init__(self, process: ProcessPlan) -> None:
        self.process = process
        self.new_user = False
        self.new_mount = True
        self.late_namespaces = 0
        self.late_pid = False
        self.time_offsets: list[tuple[str, int, int]] = []
        self.rootfs = "/"
        self.rootfs_tree = 0
        self.operations: list[Operation] = []
        self.own_trees: list[OwnTree] = []
        self.finish: list[Operation] = []
        self.root_readonly = False
        self.root_propagation: int | None = None
        self.no_pivot = False
        self.loopback = False
        self.hostname = ""
        self.domainname = ""
        self.sysctl: list[tuple[str, str]] = []
        self.console: ConsolePlan | None = None
        self.runtime_hooks = False
        self.container_hooks: list[Hook] = []

    def describe(self) -> list[str]:
        """One line for each operation, in the order in which the child performs them."""
        lines = []
        if self.late_namespaces:
            lines.append(f"unshare namespaces: {names(self.late_namespaces)}")
        lines += [f"time offset {clock} {seconds} {nanos}" for clock, seconds, nanos in self.time_offsets]
        if self.loopback:
            lines.append("bring lo up")
        lines += [operation.describe() for operation in self.operations]
        if self.runtime_hooks:
            lines.append("wait for the runtime's hooks")
        lines += [hook.describe() for hook in self.container_hooks]
        if self.console is not None:
            lines.append(f"open a terminal for uid {self.console.uid}")
        if not self.new_mount:
            lines.append("chroot")
        else:
            lines.append("move the root mount" if self.no_pivot else "pivot_root")
        if self.root_propagation is not None:
            lines.append(f"propagation of / {self.root_propagation:#x}")
        if self.root_readonly:
            lines.append("remount / [ro]")
        if self.hostname:
            lines.append(f"hostname {self.hostname}")
        if self.domainname:
            lines.append(f"domainname {self.domainname}")
        lines += [f"sysctl {path} = {value}" for path, value in self.sysctl]
        lines += [operation.describe() for operation in self.finish]
        return lines + self.process.describe()

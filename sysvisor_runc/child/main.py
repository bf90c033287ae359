"""From clone3 to execve: what the container's first process does. Import contract: builtins, kernel and child only, all
of it loaded before the seal, since the root file system belongs to a stranger.

The one linear function is `_stages`; everything it performs is in the plan.
"""

from __future__ import annotations

import fcntl
import os

from sysvisor_runc.child import channel as messages
from sysvisor_runc.child import paths, program, stage
from sysvisor_runc.child.channel import Channel
from sysvisor_runc.child.mounts import BindMount, Rootfs, attach, new_mount
from sysvisor_runc.child.process import Ready, process_calls, set_memory_policy, use_cpus
from sysvisor_runc.child.seal import seal_imports
from sysvisor_runc.child.stage import Call
from sysvisor_runc.kernel import mount as m
from sysvisor_runc.kernel.namespaces import CLONE_NEWPID, CLONE_NEWTIME, CLONE_PARENT, SIGCHLD, setns, unshare
from sysvisor_runc.kernel.prctl import PR_SET_DUMPABLE, prctl
from sysvisor_runc.kernel.syscall import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from sysvisor_runc.child.plan import ChildPlan, ProcessPlan

_CLOSE_RANGE_CLOEXEC = 4
_KEYCTL_JOIN_SESSION_KEYRING = 1
_TIOCSCTTY = 0x540E
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
FAILED_EXIT = 1
_ENDING = (1, 2, 3, 15)  # SIGHUP, SIGINT, SIGQUIT, SIGTERM: end an init that has not been started yet


class Wiring:
    """What the host made before clone3 and the child inherits.

    Attributes:
        channel: the child's end of the conversation.
        join: files that take a "0" from this very process: v1 `tasks`, or `cgroup.procs` of a hybrid's cgroup2.
        trees: detached mounts by number.
        start: where the last stage reads one byte before it goes on; -1: do not wait.
        report: where the last stage says which call failed.
        last_cap: the kernel's highest capability.
        state: the container's state for hooks, as JSON with the pid to be filled in by `pid_mark`.
        leaf: v2: `cgroup.procs` of the delegated leaf, joined once the cgroup namespace is unshared; -1: none.
        late: a socket that brings `join`, `leaf` and more trees where the cgroups are made after the clone, or -1.
        fs_socket: a socket that brings the mounts of sysvisor-fs, or -1.
        handover: a socket for the terminal's master, where the host may not take it out of us; or -1.
        pid_ns: the pid namespace that the last stage joins; -1: the child lives in the container's from the start.
        reached: called with the name of each step, for fault injection; None in ordinary runs.
    """

    __slots__ = (
        "channel",
        "fs_socket",
        "handover",
        "join",
        "last_cap",
        "late",
        "leaf",
        "pid_ns",
        "reached",
        "report",
        "start",
        "state",
        "trees",
    )

    def __init__(self, channel: Channel, trees: dict[int, int], start: int, report: int, last_cap: int) -> None:
        self.channel = channel
        self.trees = trees
        self.start = start
        self.report = report
        self.last_cap = last_cap
        self.join: list[int] = []
        self.leaf = -1
        self.pid_ns = -1
        self.late = -1
        self.fs_socket = -1
        self.handover = -1
        self.state: Callable[[str], bytes] = lambda status: b"{}"
        self.reached: Callable[[str], None] | None = None


class ChildError(Exception):
    """A stage failed for a reason that is not a bare system call's; the text is the message."""


def run(plan: ChildPlan, wiring: Wiring) -> NoReturn:
    """Become the container's program. Whatever goes wrong is told to the host, and the process ends."""
    try:
        _stages(plan, wiring)
    except BaseException as error:  # noqa: BLE001  # the boundary of this process: nothing may return into the host's code
        _tell(wiring.channel, error)
    os._exit(FAILED_EXIT)


def _tell(channel: Channel, error: BaseException) -> None:
    known = isinstance(error, OSError | ChildError)
    text = _os_error(error) if isinstance(error, OSError) else str(error)
    if not known:
        text = f"{type(error).__name__}: {text}"
    try:
        channel.send(messages.FAILED, text.encode("utf-8", "surrogateescape"))
    except OSError:
        pass  # the host is gone: nobody to tell


def _os_error(error: OSError) -> str:
    if hasattr(error, "call"):
        return str(error)
    reason = error.strerror or str(error)
    reason = reason[:1].lower() + reason[1:]
    return f"{error.filename}: {reason}" if error.filename else reason


def _stages(plan: ChildPlan, wiring: Wiring) -> None:
    """The whole way, in order. The names given to `reached` are the injection points that the tests fail in turn."""
    channel = wiring.channel
    reached = wiring.reached or _nothing
    if not plan.own_trees:  # else newuidmap(1) must still see whose process this is (proc(5), "dumpable")
        prctl(PR_SET_DUMPABLE, 0)
    os.umask(0o022)  # not the caller's, for what is made in the root file system
    os.setsid()
    if channel.receive() is None:
        raise ChildError("the command that launches the container is gone")
    reached("child-cgroup")
    if wiring.late >= 0:
        from sysvisor_runc.child import late  # the host has loaded it

        wiring.join, wiring.leaf = late.receive(wiring.late, wiring.trees)
    for fd in wiring.join:
        os.write(fd, b"0")
    use_cpus(plan.process.affinity)
    time_offsets = _open_time_offsets(plan)
    place, place_fd = _open_place(plan)
    if plan.new_user:
        _become_root()
    if plan.late_namespaces:
        unshare(plan.late_namespaces)
    if wiring.leaf >= 0:
        os.write(wiring.leaf, b"0")
    if plan.loopback:
        _bring_up_loopback()
    reached("child-seal")
    preload(plan)
    seal_imports()
    if plan.own_trees:
        _without_privileges(plan, wiring)
    rootfs = Rootfs(-1, -1, wiring.trees, wiring.pid_ns)
    rootfs.ask_host = lambda kind, text: _ask(channel, kind, text)
    rootfs.fs_socket = wiring.fs_socket
    rootfs.proc = _private_proc(plan)
    if time_offsets >= 0:
        from sysvisor_runc.child import clocks  # loaded before the seal

        clocks.write_offsets(time_offsets, plan.time_offsets)
    if plan.late_namespaces & CLONE_NEWTIME:
        _enter_new_time(rootfs.proc)
    reached("child-rootfs")
    if plan.new_mount:
        m.mount(None, "/", None, m.MS_SLAVE | m.MS_REC)
    if plan.new_mount or plan.operations:
        rootfs.root = wiring.trees[plan.rootfs_tree]
        attach(rootfs.root, place_fd, place)
        os.close(place_fd)
    else:
        rootfs.root = place_fd  # nothing to mount: nothing is left in the caller's mount namespace
    reached("child-mounts")
    for operation in plan.operations:
        _execute(operation, rootfs)
    if plan.runtime_hooks:
        reached("child-hooks")
        channel.send(messages.RUNTIME_HOOKS)
        _await_host(channel)
    os.fchdir(rootfs.root)  # where createContainer hooks start, as with runc
    if plan.container_hooks:
        _run_hooks(plan, wiring)
    reached("child-console")
    if plan.console is not None:
        from sysvisor_runc.child import console  # loaded before the seal

        console.set_up(plan.console, rootfs, wiring.handover, show=plan.new_mount, now=wiring.pid_ns < 0)
    reached("child-pivot")
    _change_root(plan, rootfs, place)
    _set_names(plan)
    reached("child-sysctl")
    for path, value in plan.sysctl:
        _write_sysctl(rootfs, path, value)
    for operation in plan.finish:
        _execute(operation, rootfs)
    reached("child-identity")
    _prepare_process(plan.process, rootfs)
    _last_stage(plan, wiring, rootfs)


def _without_privileges(plan: ChildPlan, wiring: Wiring) -> None:
    from sysvisor_runc.child import rootless  # the host has loaded it

    rootless.open_own_trees(plan.own_trees, wiring.trees)
    rootless.leave_groups(plan.process.identity, "self")


def _nothing(step: str) -> None:
    pass


def _run_hooks(plan: ChildPlan, wiring: Wiring) -> None:
    from sysvisor_runc.child.hook import HookError, run_hook  # loaded before the seal

    try:
        for entry in plan.container_hooks:
            run_hook(entry, wiring.state("creating"))
    except HookError as error:
        raise ChildError(str(error)) from error


def preload(plan: ChildPlan) -> None:
    """Import what only some plans need, while imports still come from where we are installed."""
    if plan.container_hooks:
        from sysvisor_runc.child import hook  # noqa: F401  # used behind the seal
    if plan.console is not None:
        from sysvisor_runc.child import console  # noqa: F401  # used behind the seal
    if plan.no_pivot:
        from sysvisor_runc.child import nopivot  # noqa: F401  # used behind the seal
    if any(isinstance(operation, BindMount) for operation in plan.operations):
        from sysvisor_runc.child import bindflags  # noqa: F401  # used behind the seal
    if any(getattr(operation, "copy_up", False) for operation in plan.operations):
        from sysvisor_runc.child import copy  # noqa: F401  # used behind the seal


def _become_root() -> None:
    """Take the ids of the container's root in the new user namespace, whose maps the host has written."""
    try:
        os.setgroups([])
    except PermissionError:
        pass  # rootless: setgroups is denied in this user namespace (user_namespaces(7))
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    prctl(PR_SET_DUMPABLE, 0)  # a change of ids switches it back on


def _open_time_offsets(plan: ChildPlan) -> int:
    if not plan.time_offsets:
        return -1
    from sysvisor_runc.child import clocks

    return clocks.open_offsets(private=plan.new_mount)


def _open_place(plan: ChildPlan) -> tuple[str, int]:
    """Where the new root is attached until it becomes the root: at its path, where hooks look for it.

    Opened while this process has its caller's ids. Where even they may not search the directories above it, as in
    another's home with a user namespace, over `/`: it does as well, except for hooks that enter the mount namespace.
    """
    path = plan.rootfs if plan.rootfs.startswith("/") else "/"
    try:
        return path, os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        if not plan.new_mount:
            raise
        return "/", os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _private_proc(plan: ChildPlan) -> int:
    try:
        return new_mount("proc", "proc", (), "private procfs")
    except PermissionError:
        if plan.new_mount:
            raise
        return os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # not ours to mount one there


def _enter_new_time(proc: int) -> None:
    """Be in the time namespace that unshare(2) has made for children alone: an older kernel's execve(2) leaves a
    process where it is (seen with 6.1)."""
    fd = os.open("self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    setns(fd, CLONE_NEWTIME)
    os.close(fd)


def _execute(operation: object, rootfs: Rootfs) -> None:
    try:
        operation.execute(rootfs)  # type: ignore[attr-defined]  # Operation is a protocol for the checker only
    except OSError as error:
        what = operation.describe().removeprefix("mount ")  # type: ignore[attr-defined]
        raise ChildError(f"error mounting {what}: {_os_error(error)}") from error


def _ask(channel: Channel, kind: bytes, text: str) -> None:
    channel.send(kind, text.encode())
    _await_host(channel)


def _await_host(channel: Channel) -> None:
    answer = channel.receive()
    if answer is None or answer[0] != messages.GO_ON:
        raise ChildError("the command that launches the container is gone")


def _change_root(plan: ChildPlan, rootfs: Rootfs, place: str) -> None:
    """Make the new root the root, and nothing of the old one reachable."""
    os.fchdir(rootfs.root)
    if not plan.new_mount:
        # The caller's mount namespace: there the mounts stay, as the caller has asked for.
        os.chroot(".")
        os.chdir("/")
    elif plan.no_pivot:
        from sysvisor_runc.child import nopivot  # loaded before the seal

        nopivot.move_root(rootfs, place)
    else:
        _pivot()
    if plan.root_propagation is not None:
        value = plan.root_propagation
        flags = m.AT_EMPTY_PATH | (m.AT_RECURSIVE if value & m.MS_REC else 0)
        m.mount_setattr(rootfs.root, "", flags, propagation=value & ~m.MS_REC, operand="/")
    if plan.root_readonly:
        m.mount_setattr(rootfs.root, "", m.AT_EMPTY_PATH, attr_set=m.MOUNT_ATTR_RDONLY, operand="/")


def _pivot() -> None:
    """pivot_root(2) onto itself: the old root ends stacked on the new one and is detached from there."""
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        m.pivot_root(".", ".")
        os.fchdir(old)
    finally:
        os.close(old)
    m.umount2(".", m.MNT_DETACH)
    os.chdir("/")


def _write_sysctl(rootfs: Rootfs, path: str, value: str) -> None:
    """Write below /proc/sys through the private procfs: whatever lies over the container's /proc cannot redirect it."""
    try:
        fd = os.open(f"sys/{path}", os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=rootfs.proc)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise ChildError(f"error setting sysctl {path.replace('/', '.')}={value}: {_os_error(error)}") from error


def _set_names(plan: ChildPlan) -> None:
    for call, name in (("sethostname", plan.hostname), ("setdomainname", plan.domainname)):
        if name:
            syscall(call, os.fsencode(name), len(os.fsencode(name)), operand=name)


def _bring_up_loopback() -> None:
    """Set IFF_UP on `lo` (netdevice(7)): struct ifreq is 16 bytes of name and a union of 24."""
    fd = syscall("socket", 2, 2 | os.O_CLOEXEC, 0)  # AF_INET, SOCK_DGRAM
    try:
        request = b"lo".ljust(16, b"\0") + bytes(24)
        request = fcntl.ioctl(fd, _SIOCGIFFLAGS, request)
        flags = int.from_bytes(request[16:18], "little") | _IFF_UP
        fcntl.ioctl(fd, _SIOCSIFFLAGS, request[:16] + flags.to_bytes(2, "little") + bytes(22))
    finally:
        os.close(fd)


def _prepare_process(process: ProcessPlan, rootfs: Rootfs) -> None:
    """What this process passes on over execve and need not be privileged any more for."""
    if process.keyring:
        try:
            syscall("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, process.keyring.encode() + b"\0", operand=process.keyring)
        except OSError as error:
            if error.errno != 38:  # ENOSYS: a kernel without keys
                raise
    if process.personality is not None:
        syscall("personality", process.personality, operand=hex(process.personality))
    set_memory_policy(process)
    os.umask(0o022 if process.umask is None else process.umask)
    program.complete_environment(process, rootfs.root)


def _last_stage(plan: ChildPlan, wiring: Wiring, rootfs: Rootfs) -> None:
    process, channel = plan.process, wiring.channel
    path = program.find(process, rootfs.root)
    _make_working_directory(process, rootfs)
    if rootfs.proc < 0 and (process.apparmor or process.selinux):  # no mount namespace of our own: /proc is the host's
        rootfs.proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    first = 3 + process.preserve_fds
    # What the caller left open goes with the interpreter; the duplicates made next survive it, until the program's
    # execve.
    syscall("close_range", first, 0xFFFFFFFF, _CLOSE_RANGE_CLOEXEC)
    labelled = process.apparmor or process.selinux
    keep = [wiring.start, wiring.report, rootfs.proc if labelled else -1, channel.read_fd, channel.write_fd]
    start, report, proc, read_fd, write_fd = (_above(fd, first) for fd in keep)
    close_range = Call("close_range", first, 0xFFFFFFFF, _CLOSE_RANGE_CLOEXEC)
    wait = [Call("close", read_fd), Call("close", write_fd)]
    if start >= 0:
        # A `run` that was killed meanwhile must not leave a container running that nobody asked to start.
        wait.append(Call("read", start, bytes(1), 1, skip=stage.END, what="wait for start"))
    ready = Ready(wait, read_fd, write_fd)
    calls = [close_range, *map(stage.end_on, _ENDING)]
    fork = []
    if wiring.pid_ns >= 0:
        pid_ns = _above(wiring.pid_ns, first)
        calls += [Call("setns", pid_ns, CLONE_NEWPID, what="join the pid namespace"), Call("close", pid_ns)]
        fork = _fork_into(read_fd, write_fd, terminal=plan.console is not None)
    calls += process_calls(process, path, wiring.last_cap, proc, ready, fork)
    image = stage.build(calls, report_fd=report, prefix=f"exec {path}: ")
    names = "\n".join(call.what for call in calls).encode("utf-8", "surrogateescape")
    Channel(-1, write_fd).send(messages.READY, names)
    os.execve(stage.memory_file(image), ["sysvisor-runc", "init"], {})


def _fork_into(read_fd: int, write_fd: int, *, terminal: bool) -> list[Call]:
    """Continue as a child of the command's in the pid namespace, once the command knows it as init."""
    message = stage.Slot(messages.INIT + (4).to_bytes(4, "little"))
    calls = [
        Call("clone", CLONE_PARENT | SIGCHLD, 0, 0, 0, 0, store=message, skip=2, what="fork into the pid namespace"),
        Call("write", write_fd, message, 9),
        Call("exit_group", 0),
        Call("setsid"),
        Call("read", read_fd, bytes(5), 5, skip=stage.END, what="wait for the command"),
    ]
    if terminal:
        calls.append(Call("ioctl", 0, _TIOCSCTTY, 0, what="take the terminal"))
    return calls


def _above(fd: int, lowest: int) -> int:
    """`fd` under a number that is not one of those handed to the program, open over execve."""
    return -1 if fd < 0 else fcntl.fcntl(fd, fcntl.F_DUPFD, lowest)


def _make_working_directory(process: ProcessPlan, rootfs: Rootfs) -> None:
    """Make the working directory if it is missing, as runc does."""
    try:
        os.close(paths.make_directory(rootfs.root, process.cwd))
    except OSError:
        pass  # the stage's chdir says what is wrong with it, as the user whom it concerns

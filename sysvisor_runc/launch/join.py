"""Run another process in a container: `exec`.

No interpreter of ours enters the container. The process that joins is the last stage from its first instruction: it
joins the cgroups and namespaces, forks inside the pid namespace as a child of the command (CLONE_PARENT), takes on its
identity and executes the program. So there is nothing for a hostile container to trace or to open (CVE-2016-9962,
CVE-2019-5736), with a user namespace or without.
"""

from __future__ import annotations

import errno
import fcntl
import os

from sysvisor_runc import log
from sysvisor_runc.cgroup.exec_paths import join_paths
from sysvisor_runc.cgroup.file import GONE
from sysvisor_runc.cgroup.manager import Manager
from sysvisor_runc.child import program, stage
from sysvisor_runc.child.channel import Channel, pair
from sysvisor_runc.child.process import Ready, label_calls, process_calls, set_memory_policy, use_cpus
from sysvisor_runc.child.stage import Call, Slot
from sysvisor_runc.errors import CgroupError, LaunchError, reason
from sysvisor_runc.kernel import capability
from sysvisor_runc.kernel import namespaces as ns
from sysvisor_runc.kernel.signals import reset_signals
from sysvisor_runc.kernel.syscall import syscall
from sysvisor_runc.launch import limits
from sysvisor_runc.launch.child import Child
from sysvisor_runc.launch.conversation import STAGED, Conversation
from sysvisor_runc.launch.ids import on_host
from sysvisor_runc.launch.interrupt import wait_readable
from sysvisor_runc.launch.steps import reached
from sysvisor_runc.plan.namespaces import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sysvisor_runc.child.plan import ProcessPlan
    from sysvisor_runc.plan.seccomp_cache import Filter
    from sysvisor_runc.spec.types import Process
    from sysvisor_runc.state.record import Record

_CLOSE_RANGE_CLOEXEC = 4
_SIGKILL, _SIGCHLD = 9, 17
_TIOCSCTTY = 0x540E
_KEYCTL_JOIN_SESSION_KEYRING = 1


class Joining:
    """What `exec` asks for beside the process itself.

    Attributes:
        cgroups: the values of --cgroup; without any, where the container's processes go.
        affinity: CPUs to run on from before the cgroup is joined; None leaves the caller's.
        seccomp: the filter of the plan, with where its listener goes.
        console_socket: where the terminal's master goes; "" to keep it for a relay.
        stdio: what the process gets for stdin, stdout and stderr; None: ours, or its terminal.
    """

    __slots__ = ("affinity", "cgroups", "console_socket", "detached", "seccomp", "stdio")

    def __init__(self) -> None:
        self.affinity: list[int] | None = None
        self.cgroups: list[str] = []
        self.console_socket = ""
        self.detached = False
        self.stdio: tuple[int, int, int] | None = None
        self.seccomp: Filter | None = None


class Joined:
    """A process that runs in the container; `console` is its terminal's master or -1."""

    __slots__ = ("child", "console")

    def __init__(self, child: Child, console: int) -> None:
        self.child = child
        self.console = console


def join(record: Record, init: int, process: Process, plan: ProcessPlan, joining: Joining, *, path: str = "") -> Joined:
    """Start `process` in the container whose init is behind the pidfd `init`; returns once its program runs.

    The program is at `path`, or found by the name that is its first argument.

    Raises:
        LaunchError: the program cannot be executed (exit code 255), or a namespace or cgroup cannot be joined.
    """
    root = _open_root(record, init)
    if os.geteuid() != 0:
        from sysvisor_runc.child.rootless import leave_groups

        leave_groups(plan.identity, str(record["initPid"]))
    try:
        program.complete_environment(plan, root)
        path = path or program.find(plan, root)
        return _Join(record, init, process, plan, joining, root).start(path)
    except program.ProgramNotFound as error:
        raise LaunchError(f"unable to start container process: {error}", exit_code=255) from error
    finally:
        os.close(root)


def _open_root(record: Record, init: int) -> int:
    try:
        root = os.open(f"/proc/{record['initPid']}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # Init has not been reaped yet, so its pid was nobody else's, neither now nor when --user was looked up.
        syscall("pidfd_send_signal", init, 0, 0, 0, operand="init")
        return root
    except OSError as error:
        raise LaunchError(f"open the root of container {record['id']!r}: {reason(error)}") from error


def _namespaces(record: Record) -> int:
    """The kinds that the container has of its own, and those in which init merely is somewhere else than we are.

    The caller may have changed its own since, and criu gives what it restores a time namespace.
    """
    flags = 0
    for entry in (record["spec"].get("linux") or {}).get("namespaces") or ():
        flags |= NAMESPACES[entry["type"]][0]
    for flag, name in NAMESPACES.values():
        if flag != ns.CLONE_NEWUSER and not flags & flag and _elsewhere(record["initPid"], name):
            flags |= flag
    return flags


def _elsewhere(pid: int, name: str) -> bool:
    try:
        return os.stat(f"/proc/{pid}/ns/{name}").st_ino != os.stat(f"/proc/self/ns/{name}").st_ino
    except OSError:  # a kind that this kernel lacks; or init is gone, and joining it fails
        return False


def _open_cgroups(manager: Manager, target: dict[str, str], chosen: bool) -> tuple[list[int], int | None]:
    try:
        return manager.join_fds(target), manager.clone_into_fd(target)
    except CgroupError as error:
        hint = "--cgroup must name a cgroup that is there" if chosen else error.hint
        raise _not_added(error.message, hint) from error


def _clone(cgroup_fd: int | None) -> tuple[int, int]:
    try:
        return ns.clone3(0, cgroup_fd=cgroup_fd)
    except OSError as error:
        if error.errno == errno.EBUSY:  # it passes controllers down and may hold no process (cgroups(7))
            raise _not_added(reason(error), "name a cgroup below it with --cgroup") from error
        if error.errno in GONE:
            raise _not_added("the cgroup has been removed", "the container has ended") from error
        raise


def _not_added(why: str, hint: str | None = None) -> LaunchError:
    return LaunchError(f"error adding pid {os.getpid()} to cgroups: {why}", hint=hint, exit_code=255)


class _Join:
    """One joining: the values that its steps hand to each other."""

    def __init__(
        self, record: Record, init: int, process: Process, plan: ProcessPlan, joining: Joining, root: int
    ) -> None:
        self.record = record
        self.init = init
        self.process = process
        self.plan = plan
        self.joining = joining
        self.root = root
        self.seccomp = joining.seccomp
        self.console = -1
        self.namespaces = _namespaces(record)

    def _explain(self, cgroups: dict[str, str]) -> None:
        if log.debugging():
            for line in self.describe(cgroups):
                log.debug(f"plan: {line}")

    def describe(self, cgroups: dict[str, str]) -> list[str]:
        """One line for each step, as those of a launch (`Plan.describe`)."""
        host = [f"join cgroup {path}" for path in dict.fromkeys(cgroups.values())]
        if self.plan.affinity:
            host.append(f"run on CPUs {','.join(map(str, self.plan.affinity))}")
        host += [f"rlimit {name} {soft} {hard}" for _, name, soft, hard in self.plan.rlimits]
        if self.namespaces:
            host.append(f"join namespaces of process {self.record['initPid']}: {ns.names(self.namespaces)}")
        return [f"host: {line}" for line in host] + [f"child: {line}" for line in self.plan.describe()]

    def start(self, path: str) -> Joined:
        """Fork, wire, execute the last stage, and wait until the program runs."""
        cgroup = self.record["cgroup"]
        manager = Manager(cgroup["paths"], delegated=bool(cgroup["leaf"]))
        target = join_paths(manager, self.record["initPid"], self.joining.cgroups)
        self._explain(target)
        tasks, cgroup_fd = _open_cgroups(manager, target, bool(self.joining.cgroups))
        slave = self._open_terminal()
        report, pids = os.pipe(), os.pipe()
        host, inner = pair()
        conversation = Conversation()
        conversation.state = STAGED
        reached("exec-clone")
        if self.joining.affinity:
            os.sched_setaffinity(0, self.joining.affinity)  # for the command too: it has little left to do
        first, pidfd = _clone(cgroup_fd)
        if first == 0:
            self._become_stage(path, tasks, slave, report[1], pids[1], inner)
        for fd in (*tasks, slave, report[1], pids[1], inner.read_fd, inner.write_fd, pidfd, cgroup_fd):
            if fd is not None and fd >= 0:
                os.close(fd)
        try:
            wait_readable(pids[0])  # until a paused container goes on, if need be
            answer = os.read(pids[0], 4)
        except BaseException:
            os.kill(first, _SIGKILL)
            raise
        os.close(pids[0])
        os.waitpid(first, 0)
        failure = b"" if answer else os.read(report[0], 8)
        if not answer:
            raise self._failed(failure, path)
        pid = int.from_bytes(answer, "little")
        child = Child(pid, os.pidfd_open(pid))
        try:
            reached("exec-joined")
            if "scheduler" in self.process:
                # On the process itself, which waits for it: not every policy passes on to a child.
                limits.set_scheduler(pid, self.process["scheduler"])
                os.write(host.write_fd, b"0")
            self._join_rdt(pid)
            self._follow(child, host, report[0], path)
        except BaseException:
            child.kill()
            raise
        return Joined(child, self.console)

    def _join_rdt(self, pid: int) -> None:
        intel_rdt = (self.record["spec"].get("linux") or {}).get("intelRdt")
        if intel_rdt is not None:
            from sysvisor_runc.launch.rdt import join_rdt

            join_rdt(intel_rdt, self.record["id"], pid)

    def _follow(self, child: Child, host: Channel, report: int, path: str) -> None:
        """Wait for the execve, handing over a seccomp listener on the way."""
        wait_readable(host.read_fd)
        message = host.receive()
        if message is not None:
            from sysvisor_runc.launch.listener import hand_over
            from sysvisor_runc.launch.ocistate import state_json

            record = self.record
            state = state_json(
                record["id"],
                record["ociVersion"],
                "running",
                record["initPid"],
                record["bundle"],
                record["annotations"],
            )
            hand_over(self.seccomp, child, message[1], state)
            host.send(b"K")
        host.close()
        wait_readable(report)
        failure = os.read(report, 8)
        os.close(report)
        if failure:
            child.reap()
            raise self._failed(failure, path)

    def _failed(self, report: bytes, path: str) -> LaunchError:
        if len(report) < 8:
            return LaunchError("unable to start container process: the process ended unexpectedly", exit_code=255)
        conversation = Conversation()
        terminal = 0 if self.process.get("terminal") else -1
        calls = self._calls(path, -1, -1, -1, terminal, Channel(-1, -1))
        conversation.calls = [call.what for call in calls]
        error = conversation.stage_failure(report)
        error.exit_code = 255
        return error

    # ---- in the forked process

    def _become_stage(
        self, path: str, tasks: list[int], slave: int, report: int, pids: int, inner: Channel
    ) -> NoReturn:
        try:
            reset_signals()
            for fd in tasks:
                os.write(fd, b"0")
            use_cpus(self.plan.affinity)
            self._limits()
            stdio = self.joining.stdio if slave < 0 else (slave, slave, slave)
            for number, fd in enumerate(stdio or ()):
                os.dup2(fd, number)
            first = 3 + self.plan.preserve_fds
            syscall("close_range", first, 0xFFFFFFFF, _CLOSE_RANGE_CLOEXEC)
            labelled = self.plan.apparmor or self.plan.selinux
            proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if labelled else -1
            kept = [_above(fd, first) for fd in (self.init, report, pids, proc, inner.read_fd, inner.write_fd)]
            init, report, pids, proc, read_fd, write_fd = kept
            self.root = _above(self.root, first) if self.record["flags"].get("noPivot") else -1
            calls = self._calls(path, init, pids, proc, 0 if slave >= 0 else -1, Channel(read_fd, write_fd))
            image = stage.build(calls, report_fd=report)
            os.execve(stage.memory_file(image), ["sysvisor-runc", "init"], {})
        except OSError as error:
            os.write(report, (0xFFFF).to_bytes(4, "little") + (error.errno or 5).to_bytes(4, "little"))
        finally:
            os._exit(255)

    def _limits(self) -> None:
        """What needs the host's privileges and is inherited by the process inside."""
        limits.raise_rlimits(0, self.plan.rlimits)
        limits.set_oom_score_adj(os.getpid(), self.process.get("oomScoreAdj"), None)
        if "ioPriority" in self.process:
            limits.set_io_priority(0, self.process["ioPriority"])
        set_memory_policy(self.plan)

    def _calls(self, path: str, init: int, pids: int, proc: int, terminal: int, channel: Channel) -> list[Call]:
        flags = self.namespaces
        first = 3 + self.plan.preserve_fds
        pid = Slot()
        calls = [Call("close_range", first, 0xFFFFFFFF, _CLOSE_RANGE_CLOEXEC)]
        # Before the fork: the file belongs to this very task, and what it says passes on to the child.
        calls += label_calls(self.plan, proc)
        if self.plan.apparmor or self.plan.selinux:
            # The host's procfs must not be found open in a process that the container may look into.
            calls.append(Call("close", proc))
        if flags:
            calls.append(Call("setns", init, flags, what="join the container's namespaces"))
        if self.record["flags"].get("noPivot"):
            calls += [Call("fchdir", self.root), Call("chroot", b".\0", what="change to the container's root")]
            calls.append(Call("close", self.root))
        calls.append(Call("close", init))
        if self.plan.keyring:
            name = self.plan.keyring.encode() + b"\0"
            calls.append(Call("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, name, flags=stage.IGNORE_ERROR))
        calls.append(Call("umask", 0o022 if self.plan.umask is None else self.plan.umask))
        if self.plan.personality is not None:
            calls.append(Call("personality", self.plan.personality))
        fork = [
            Call("clone", ns.CLONE_PARENT | _SIGCHLD, 0, 0, 0, 0, store=pid, skip=2, what="fork in the container"),
            Call("write", pids, pid, 4),
            Call("exit_group", 0),
            Call("close", pids),
            Call("setsid"),
        ]
        if "scheduler" in self.process:
            fork.append(Call("read", channel.read_fd, bytes(1), 1, skip=stage.END, what="wait for the scheduler"))
        if terminal >= 0:
            fork.append(Call("ioctl", terminal, _TIOCSCTTY, 0, what="take the terminal"))
        ready = Ready(
            [Call("close", channel.read_fd), Call("close", channel.write_fd)], channel.read_fd, channel.write_fd
        )
        return calls + process_calls(self.plan, path, capability.last_cap(), -1, ready, fork)

    # ---- terminal

    def _open_terminal(self) -> int:
        """A terminal from the container's own devpts; the master stays here or goes to the console socket."""
        if not self.process.get("terminal"):
            return -1
        from sysvisor_runc.child import console
        from sysvisor_runc.child.mounts import Rootfs

        try:
            master, slave = console.open_terminal(Rootfs(self.root, -1, {}))
        except OSError as error:
            hint = "the container needs a devpts on /dev/pts"
            raise LaunchError(f"open a terminal in the container: {reason(error)}", hint=hint) from error
        size = self.process.get("consoleSize")
        if size:
            console.resize(slave, size["height"], size["width"])
        os.fchown(
            slave,
            on_host((self.record["spec"].get("linux") or {}).get("uidMappings") or (), self.plan.identity.uid),
            -1,
        )
        if self.joining.console_socket:
            from sysvisor_runc.launch.handover import send_descriptor

            send_descriptor(self.joining.console_socket, master, b"/dev/ptmx", "--console-socket")
            os.close(master)
        else:
            from sysvisor_runc.launch.terminal import adapt

            adapt(master, size)
            self.console = master
        return slave


def _above(fd: int, lowest: int) -> int:
    return -1 if fd < 0 else fcntl.fcntl(fd, fcntl.F_DUPFD, lowest)

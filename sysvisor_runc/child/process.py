"""The calls of the last stage that turn a process into the user's program; `run` and `exec` end alike.

May import kernel and child.
"""

from __future__ import annotations

import os

from sysvisor_runc.child import channel as messages
from sysvisor_runc.child import identity, stage
from sysvisor_runc.child.stage import SAY_WHY, Call
from sysvisor_runc.kernel.openat2 import RESOLVE_NO_MAGICLINKS
from sysvisor_runc.kernel.prctl import PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_NO_NEW_PRIVS
from sysvisor_runc.kernel.syscall import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.child.plan import ProcessPlan, SeccompFilter

_SECCOMP_SET_MODE_FILTER = 1
_AT_FDCWD = -100
_ALL_CPUS = b"\xff" * 1024  # 8192 CPUs, the most that Linux is built for


class Ready:
    """How the last stage tells the host that it is there: `calls`, and the channel that a listener is announced on."""

    __slots__ = ("calls", "read_fd", "write_fd")

    def __init__(self, calls: list[Call], read_fd: int, write_fd: int) -> None:
        self.calls = calls
        self.read_fd = read_fd
        self.write_fd = write_fd


def use_cpus(cpus: list[int] | None) -> None:
    """Run on `cpus`, or on all that the cgroup allows: newer kernels keep a caller's own choice when it is joined."""
    if cpus is not None:
        os.sched_setaffinity(0, cpus)
        return
    try:
        syscall("sched_setaffinity", 0, len(_ALL_CPUS), _ALL_CPUS)
    except OSError:
        pass  # none of them, or not ours to say: it stays as the caller has it


def set_memory_policy(process: ProcessPlan) -> None:
    """set_mempolicy(2), if the process has one. Raises OSError."""
    if process.memory_policy is not None:
        mode, nodes, count = process.memory_policy
        syscall("set_mempolicy", mode, nodes or 0, count, operand=hex(mode))


def process_calls(
    process: ProcessPlan, path: str, last_cap: int, proc: int, ready: Ready, fork: list[Call] | None = None
) -> list[Call]:
    """The calls of the last stage for `process`: label, identity, `fork`, working directory, `ready`, seccomp, execve.

    A filter is loaded before the privileges go unless no_new_privs allows it after the wait; one with a listener is
    loaded before the wait in any case, while the host is there to take the listener.

    `fork` continues as a process in a pid namespace that others live in. It comes when privileges have gone: whoever
    has CAP_SYS_PTRACE there, and no user namespace around him, would take them over (CVE-2016-9962 goes on after
    dumpable=0). Only where a filter that must be loaded with privileges might forbid the fork, it comes before that.
    """
    seccomp = process.seccomp
    no_new_privs = process.identity.no_new_privs
    load = [] if seccomp is None else _seccomp_calls(seccomp, ready)
    start = _first_calls(process, proc)
    start += [_rlimit_call(*limit) for limit in process.rlimits]
    late_fork = list(fork or ())
    may_search = process.identity.may_search()
    opening, entering = _change_directory(process.cwd, tolerant=not may_search)
    # Before a filter is loaded, which need not allow openat2(2).
    start.append(opening)
    if seccomp is not None and not no_new_privs:
        if seccomp.notify or not seccomp.may_fork:
            start += late_fork
            late_fork = []
        start += load
    # A change of ids may have switched dumpable on again (fs.suid_dumpable).
    become = [*identity.calls(process.identity, last_cap), Call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0), *late_fork]
    calls = []
    if no_new_privs:
        calls.append(Call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    late = load if no_new_privs else []
    calls += [*late, *ready.calls] if seccomp is not None and seccomp.notify else [*ready.calls]
    if late and seccomp is not None and not seccomp.notify:
        calls += late
    argv = [os.fsencode(arg) for arg in process.args]
    envp = [os.fsencode(entry) for entry in process.env]
    calls.append(Call("execve", os.fsencode(path) + b"\0", argv, envp, flags=SAY_WHY, what=f"exec {path}"))
    if may_search:
        return [*start, *become, entering, *calls]
    # A directory that the user may not enter is fine if root may, and the other way round (as with runc): once we are
    # in it, the list goes on behind the one that tries as the user.
    as_user = [*become, *_change_directory(process.cwd, tolerant=False), *calls]
    entering.skip = len(as_user)
    return [*start, entering, *as_user, *become, *calls]


def _rlimit_call(resource: int, name: str, soft: int, hard: int) -> Call:
    """struct rlimit64 is the soft and the hard limit, a u64 each (prlimit(2))."""
    value = soft.to_bytes(8, "little") + hard.to_bytes(8, "little")
    return Call("prlimit64", 0, resource, value, 0, what=f"error setting rlimit {name} to {soft}:{hard}")


def _change_directory(cwd: str, *, tolerant: bool) -> tuple[Call, Call]:
    """Open the working directory, and change to what was opened; `tolerant`: go on where either fails.

    Never through a magic link: /proc/self/fd/N may lead out of the root file system (CVE-2024-21626), and so would a
    link that is swapped in between looking and changing.
    """
    found, what = stage.Result(), f"chdir to cwd ({cwd!r})"
    flags = stage.IGNORE_ERROR if tolerant else 0
    words = (os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS)
    how = b"".join(n.to_bytes(8, "little") for n in words)
    path = os.fsencode(cwd) + b"\0"
    opening = Call("openat2", _AT_FDCWD, path, how, len(how), store=found, flags=flags, what=what)
    return opening, Call("fchdir", found, flags=flags, what=what)


def _seccomp_calls(seccomp: SeccompFilter, ready: Ready) -> list[Call]:
    """struct sock_fprog is a u16 count, padding to eight bytes, and a pointer to the instructions."""
    fprog = stage.Blob((len(seccomp.bpf) // 8).to_bytes(8, "little") + bytes(8), [(8, seccomp.bpf)])
    what = "load the seccomp filter"
    if not seccomp.notify:
        return [Call("seccomp", _SECCOMP_SET_MODE_FILTER, seccomp.flags, fprog, flags=SAY_WHY, what=what)]
    # The message is LISTENER, its length, and the number of the descriptor, which seccomp(2) stores right there.
    message = stage.Slot(messages.LISTENER + (4).to_bytes(4, "little"))
    return [
        Call("seccomp", _SECCOMP_SET_MODE_FILTER, seccomp.flags, fprog, store=message, what=what),
        Call("write", ready.write_fd, message, 9, what="hand over the seccomp listener"),
        Call("read", ready.read_fd, bytes(5), 5, skip=stage.END, what="wait for the seccomp agent"),
    ]


def _first_calls(process: ProcessPlan, proc: int) -> list[Call]:
    calls = [Call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0), Call("prctl", PR_SET_NAME, b"sysvisor-runc\0", 0, 0, 0)]
    # Nobody who may look into the process later shall find a procfs that is perhaps not his.
    return calls if proc < 0 else [*calls, *label_calls(process, proc), Call("close", proc)]


def label_calls(process: ProcessPlan, proc: int) -> list[Call]:
    """Set the label that the program's execve brings, through the procfs `proc`: not the container's (CVE-2019-16884).

    The file is opened by the very program that writes it: since Linux 5.13 nobody else may, not even the process that
    we were before an execve.
    """
    if process.apparmor:
        label, what = f"exec {process.apparmor}", f"apply apparmor profile {process.apparmor!r} (enabled and loaded?)"
    elif process.selinux:
        label, what = process.selinux, f"apply selinux label {process.selinux!r}"
    else:
        return []
    path = "self/attr/exec"
    if process.apparmor and _exists("self/attr/apparmor/exec", proc):  # its own since Linux 5.8, beside other modules'
        path = "self/attr/apparmor/exec"
    opened, data = stage.Result(), label.encode("utf-8", "surrogateescape")
    how = (os.O_WRONLY | os.O_CLOEXEC).to_bytes(24, "little")  # struct open_how: flags, mode, resolve
    return [
        Call("openat2", proc, path.encode() + b"\0", how, len(how), store=opened, what=what),
        Call("write", opened, data, len(data), what=what),
    ]


def _exists(path: str, directory: int) -> bool:
    try:
        os.stat(path, dir_fd=directory)
    except OSError:
        return False
    return True

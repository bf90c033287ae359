"""clone3(2), unshare(2), setns(2) and the namespace flags.

A process must be single-threaded here: `unshare(CLONE_NEWUSER)` and `setns` to a user or mount namespace fail with
EINVAL otherwise, and the child of `clone3` continues in this interpreter with one thread.
"""

import os

from sysvisor_runc.kernel.prctl import PR_GET_PDEATHSIG, PR_SET_PDEATHSIG, capget, capset, prctl
from sysvisor_runc.kernel.syscall import address, buffer, syscall

CLONE_NEWTIME = 0x00000080
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000
SIGCHLD = 17

# For people; in the order of namespaces(7).
_NAMES = (
    (CLONE_NEWCGROUP, "cgroup"),
    (CLONE_NEWIPC, "ipc"),
    (CLONE_NEWNET, "network"),
    (CLONE_NEWNS, "mount"),
    (CLONE_NEWPID, "pid"),
    (CLONE_NEWTIME, "time"),
    (CLONE_NEWUSER, "user"),
    (CLONE_NEWUTS, "uts"),
)


# PROC_USER_INIT_INO of <linux/proc_ns.h>.
_INITIAL_USER = 0xEFFFFFFD


def in_initial_user() -> bool:
    """Whether we are in the initial user namespace: only there can device nodes be made, for one."""
    try:
        return os.stat("/proc/self/ns/user").st_ino == _INITIAL_USER
    except FileNotFoundError:
        return True  # a kernel without user namespaces


def names(flags: int) -> str:
    """The namespaces that `flags` stand for, as words."""
    return " ".join(name for flag, name in _NAMES if flags & flag)


def clone3(
    flags: int, *, exit_signal: int = SIGCHLD, cgroup_fd: int | None = None, owner: int | None = None
) -> tuple[int, int]:
    """Fork as clone3(2), Linux 5.3: return `(pid, pidfd)` in the parent and `(0, -1)` in the child.

    No Python fork hooks run. The child must end by execve or `os._exit`. `cgroup_fd` (with CLONE_INTO_CGROUP, Linux
    5.7) is a cgroup v2 directory. `owner`, for root only, is the user whom the new user namespace belongs to, and whom
    the kernel counts what is made in it against: the child's effective user. struct clone_args is eleven u64: flags,
    pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup.
    """
    assert_single_threaded()
    pidfd = buffer(4)
    if cgroup_fd is not None:
        flags |= CLONE_INTO_CGROUP
    if flags & CLONE_PARENT:
        exit_signal = 0  # the kernel takes the caller's own
    fields = [flags | CLONE_PIDFD, address(pidfd), 0, 0, exit_signal, 0, 0, 0, 0, 0, cgroup_fd or 0]
    args = b"".join(n.to_bytes(8, "little") for n in fields)
    if owner is None:
        pid = syscall("clone3", args, len(args))
    else:
        pid = _clone3_as(owner, args)
    if pid == 0:
        return 0, -1
    return pid, int.from_bytes(bytes(pidfd), "little")


def _clone3_as(user: int, args: bytes) -> int:
    """clone3 with `user` as effective user id and all capabilities: a user namespace is the effective user's.

    The real and the saved id stay, so that nobody who has that id in a container may signal or trace us meanwhile.
    """
    _, permitted, inheritable = capget()
    signal = buffer(4)
    prctl(PR_GET_PDEATHSIG, address(signal))
    pid = -1
    syscall("setresuid", -1, user, -1, operand=str(user))
    try:
        capset(permitted, permitted, inheritable)
        pid = syscall("clone3", args, len(args))
    finally:
        if pid:
            syscall("setresuid", -1, 0, -1, operand="0")  # with it all that is permitted is effective: capabilities(7)
            # A change of ids forgets what the caller wants to happen to us when it dies, as containerd's shim does.
            prctl(PR_SET_PDEATHSIG, int.from_bytes(bytes(signal), "little"))
    return pid


def unshare(flags: int) -> None:
    """unshare(2)."""
    syscall("unshare", flags, operand=f"{flags:#x}")


def setns(fd: int, nstype: int, *, operand: str = "") -> None:
    """setns(2): `fd` is a namespace file, or (Linux 5.8) a pidfd with several flags in `nstype`."""
    syscall("setns", fd, nstype, operand=operand or f"{nstype:#x}")


def assert_single_threaded() -> None:
    """Raise RuntimeError if the process has more than one thread."""
    # st_nlink of a task directory is 2 plus the number of threads: one stat instead of a listing.
    try:
        links = os.stat("/proc/self/task").st_nlink
    except FileNotFoundError:
        return  # in a joined mount namespace, whose procfs does not know us: it was seen to before
    if links != 3:
        raise RuntimeError("clone3 and setns need a single-threaded process")

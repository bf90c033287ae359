"""Bring the child into being in namespaces that are given by path, through a first stage that joins them. Loaded only
where there are any.
"""

from __future__ import annotations

import os

from sysvisor_runc.child import channel as messages
from sysvisor_runc.child import main as child_main
from sysvisor_runc.child.seal import seal_imports
from sysvisor_runc.errors import LaunchError
from sysvisor_runc.kernel import mount as m
from sysvisor_runc.kernel import namespaces as ns
from sysvisor_runc.kernel.prctl import PR_SET_DUMPABLE, prctl
from sysvisor_runc.kernel.signals import reset_signals
from sysvisor_runc.launch.child import Child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from sysvisor_runc.child.channel import Channel
    from sysvisor_runc.child.main import Wiring
    from sysvisor_runc.plan.plan import Plan


def through_first_stage(
    plan: Plan, wiring: Wiring, cgroup_fd: int | None, become: Callable[[], NoReturn], host: Channel
) -> Child:
    """The first stage joins the namespaces that exist, then clones the child as our own (CLONE_PARENT) and ends.

    `become` is what the child does.

    Raises:
        LaunchError: a namespace cannot be made or joined.
        OSError: the first stage cannot be cloned.
    """
    read_end, write_end = os.pipe()
    # With the option nsdelegate nobody enters a cgroup that lies outside of his cgroup namespace (cgroup-v2.rst).
    before = cgroup_fd if any(flag == ns.CLONE_NEWCGROUP for flag, _ in plan.join) else None
    first, pidfd = ns.clone3(0, cgroup_fd=before)
    if first == 0:
        _first_stage(plan, wiring, cgroup_fd if before is None else None, become, write_end)
    os.close(write_end)
    answer = os.read(read_end, 4)
    os.close(read_end)
    os.close(pidfd)
    os.waitpid(first, 0)
    if len(answer) < 4:
        message = host.receive() if _readable(host.read_fd) else None
        text = message[1].decode("utf-8", "surrogateescape") if message and message[0] == messages.FAILED else "no word"
        raise LaunchError(f"unable to start container process: {text}")
    pid = int.from_bytes(answer, "little")
    return Child(pid, os.pidfd_open(pid))


def _first_stage(
    plan: Plan, wiring: Wiring, cgroup_fd: int | None, become: Callable[[], NoReturn], write_end: int
) -> NoReturn:
    try:
        reset_signals()
        # A container that shares the pid namespace must not look into this process (CVE-2016-9962).
        prctl(PR_SET_DUMPABLE, 0)
        # From here on a path may lead into somebody else's files: nothing is imported any more.
        child_main.preload(plan.child)
        seal_imports()
        opened = [(flag, path, os.open(path, os.O_RDONLY | os.O_CLOEXEC)) for flag, path in plan.join]
        for flag, path, fd in opened:
            if flag == ns.CLONE_NEWPID and plan.child.late_pid and _can_show(fd):
                wiring.pid_ns = fd
                continue
            ns.setns(fd, flag, operand=path)
        pid, _ = ns.clone3(plan.clone_flags | ns.CLONE_PARENT, cgroup_fd=cgroup_fd, owner=plan.owner)
        if pid == 0:
            os.close(write_end)
            become()
        os.write(write_end, pid.to_bytes(4, "little"))
        os._exit(0)
    except OSError as error:
        text = (
            str(error) if error.filename is None else f"namespace {error.filename!r}: {(error.strerror or '').lower()}"
        )
        wiring.channel.send(messages.FAILED, text.encode("utf-8", "surrogateescape"))
    finally:
        os._exit(1)


def _can_show(pid_ns: int) -> bool:
    """Whether a procfs of a pid namespace can be made from outside of it (Linux 6.18); else it has to be entered."""
    context = m.fsopen("proc")
    try:
        m.fsconfig(context, m.FSCONFIG_SET_FD, "pidns", None, pid_ns)
        return True
    except OSError:
        return False
    finally:
        os.close(context)


def _readable(fd: int) -> bool:
    import select

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))

"""The named steps of a launch, where a fault can be injected: `SYSVISOR_RUNC_FAULT=ACTION:STEP`.

The tests fail and kill a launch at each of them in turn, and stop it there to do something to others. Imports errors
only.
"""

from __future__ import annotations

import os

from sysvisor_runc.errors import LaunchError

# In the order of a launch. `hooks`, `console`, `rdt` and `pid-file` are only reached where the container has them.
STEPS = (
    "state",
    "ids",
    "plan",
    "cgroup",
    "settings",
    "rdt",
    "trees",
    "clone",
    "init",
    "maps",
    "limits",
    "go",
    "child-cgroup",
    "child-seal",
    "child-rootfs",
    "child-mounts",
    "child-hooks",
    "hooks",
    "child-console",
    "console",
    "child-pivot",
    "child-sysctl",
    "child-identity",
    "ready",
    "record",
    "pid-file",
    "pidfd-socket",
    "start",
    "poststart",
)
# With sysvisor-fs only, in the order of a launch.
FS_STEPS = ("fs-daemon", "fs-prepare", "fs-trees", "fs-register", "fs-update")
# Of `start`, `exec`, `update` and `delete`, beside those that they share with a launch.
OTHER_STEPS = (
    "started",
    "exec-clone",
    "exec-joined",
    "update-apply",
    "update-save",
    "delete-init",
    "delete-cgroup",
    "delete-ids",
    "delete-poststop",
    "delete-state",
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SIGKILL, _SIGSTOP = 9, 19
FAULT = os.environ.get("SYSVISOR_RUNC_FAULT", "")


def reached(step: str) -> None:
    """Fail or die here if the environment asks for it.

    Raises:
        LaunchError: `fail:` was asked for.
    """
    if not FAULT:
        return
    action, _, wanted = FAULT.partition(":")
    if wanted != step:
        return
    if action == "kill":
        os.kill(os.getpid(), _SIGKILL)
    if action == "stop":
        os.kill(os.getpid(), _SIGSTOP)
        return
    raise LaunchError(f"fault injected at step {step!r}")


def reached_in_child() -> Callable[[str], None]:
    """What the container's first process calls at its steps: there, `kill:` ends the command that launches it.

    It is done by a process outside its pid namespace, and is done when the call returns.
    """
    action, _, wanted = FAULT.partition(":")
    if action != "kill" or not wanted.startswith("child-"):
        return reached
    asked, done = os.pipe(), os.pipe()
    command = os.pidfd_open(os.getpid())
    if os.fork() == 0:
        kept = 0
        for fd in sorted((asked[0], done[1], command)):  # no end of the conversation may stay open here
            os.closerange(kept, fd)
            kept = fd + 1
        os.closerange(kept, 1 << 16)
        if os.read(asked[0], 1):
            _kill(command)
        os._exit(0)
    os.close(done[1])

    def reached_there(step: str) -> None:
        if step == wanted:
            os.write(asked[1], b"k")
            os.read(done[0], 1)  # ends with the process that kills

    return reached_there


def _kill(command: int) -> None:
    from select import poll

    from sysvisor_runc.kernel.pidfd import pidfd_send_signal

    pidfd_send_signal(command, _SIGKILL)
    ended = poll()
    ended.register(command)
    ended.poll()

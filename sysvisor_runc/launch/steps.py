"""The named steps of a launch, where a fault can be injected: `SYSVISOR_RUNC_FAULT=fail:STEP` or `kill:STEP`.

The tests fail and kill a launch at each of them in turn. Imports errors only.
"""

from __future__ import annotations

import os

from sysvisor_runc.errors import LaunchError

STEPS = (
    "state",
    "ids",
    "plan",
    "cgroup",
    "trees",
    "clone",
    "maps",
    "limits",
    "go",
    "child-cgroup",
    "child-seal",
    "child-rootfs",
    "child-mounts",
    "child-hooks",
    "child-console",
    "child-pivot",
    "child-sysctl",
    "child-identity",
    "hooks",
    "console",
    "ready",
    "record",
    "pid-file",
    "start",
    "poststart",
)

_SIGKILL = 9
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
    raise LaunchError(f"fault injected at step {step!r}")

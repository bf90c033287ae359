"""What a container inherits of whoever starts it where its configuration says nothing, stored for the next start: the
supervisor has it of another command, and some of it its own way. Loaded only for containers that are started again.
"""

from __future__ import annotations

import os
import resource

from sysvisor_runc import log
from sysvisor_runc.errors import reason
from sysvisor_runc.kernel import file
from sysvisor_runc.kernel.syscall import syscall

_OOM = "/proc/self/oom_score_adj"
_LIMITS = 16  # RLIM_NLIMITS
_ASK = 0xFFFFFFFF  # personality(2)


def seen() -> dict[str, object]:
    """This process's own."""
    return {
        "limits": [list(resource.getrlimit(number)) for number in range(_LIMITS)],
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "oomScoreAdj": int(file.read(_OOM)),
        "personality": syscall("personality", _ASK),
        "cpus": sorted(os.sched_getaffinity(0)),
    }


def take_on(stored: object) -> None:
    """Be as the process was that has `seen` it, as far as we may."""
    if not isinstance(stored, dict):
        return
    now = seen()
    for key, value in stored.items():
        if key in now and value != now[key]:
            try:
                _take(key, value)
            except (OSError, ValueError) as error:
                why = reason(error) if isinstance(error, OSError) else str(error)
                log.debug(f"{key} of the first start: {why}")


def _take(key: str, value: object) -> None:
    if isinstance(value, int):
        if key == "nice":
            os.setpriority(os.PRIO_PROCESS, 0, value)
        elif key == "oomScoreAdj":
            file.write(_OOM, str(value))
        elif key == "personality":
            syscall("personality", value)
    elif isinstance(value, list):
        if key == "cpus":
            os.sched_setaffinity(0, value)
        elif key == "limits":
            _take_limits(value)


def _take_limits(limits: list[list[int]]) -> None:
    for number, (soft, hard) in enumerate(limits):
        most = resource.getrlimit(number)[1]
        try:
            resource.setrlimit(number, (soft, hard))
        except ValueError:  # it lies above our own hard limit, and CAP_SYS_RESOURCE is missing
            if most == resource.RLIM_INFINITY or 0 <= soft <= most:
                resource.setrlimit(number, (soft, most))

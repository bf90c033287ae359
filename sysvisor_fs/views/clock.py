"""How long a container has been there, on the boot clock: setting the time of day changes nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sysvisor_fs.node import Container


def age_ns(container: Container) -> int:
    """Nanoseconds since it started; 0 before."""
    if not container.start_boottime_ns:
        return 0
    return max(0, time.clock_gettime_ns(time.CLOCK_BOOTTIME) - container.start_boottime_ns)


def started(container: Container) -> int:
    """When that was, in seconds since the epoch, by the wall clock as it is set now."""
    return (time.time_ns() - age_ns(container)) // 1_000_000_000

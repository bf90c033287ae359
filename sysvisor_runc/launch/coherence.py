"""Keep two mounts of the same overlay layers in step: the client's and the container's.

Each caches names that it has looked up, and does not see what the other changes below it: `docker cp` into a container
that runs, say. When it has been started, with every `exec`, at `pause` and at `resume` both are made to look anew.
"""

from __future__ import annotations

import os

from sysvisor_runc.launch.overlay import refresh
from sysvisor_runc.state import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.state.record import Record


def refresh_both(record: Record) -> None:
    """Have both mounts of a container's root file system forget what they know. Nothing happens to others."""
    if "overlayWork" not in record:
        return
    refresh(record["rootfs"])
    try:
        pidfd = process.open_init(record)
    except process.NotRunning:
        return
    try:
        # Whatever root its init may have taken by now: nothing but the overlay that we made is touched.
        refresh(f"/proc/{record['initPid']}/root", record.get("overlayDevice", -1))
    finally:
        os.close(pidfd)

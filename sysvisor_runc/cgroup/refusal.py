"""Why a cgroup or a value cannot be used, in words. Loaded only when it is so."""

from __future__ import annotations

import errno

from sysvisor_runc.cgroup.file import DENIED, GONE, read_if_there
from sysvisor_runc.cgroup.tree import pids
from sysvisor_runc.errors import CgroupError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.settings import Setting, UsageCheck


def refuse_used(path: str, *, frozen: bool, member: int = 0) -> None:
    """Raise CgroupError where a cgroup that was there before holds processes but `member`, or would stop them."""
    if found := [pid for pid in pids(path) if pid != member]:
        raise CgroupError(
            f"container's cgroup is not empty: {len(found)} process(es) found",
            hint=f"{path} belongs to something else; choose another linux.cgroupsPath",
        )
    if frozen:
        raise CgroupError("container's cgroup unexpectedly frozen", hint=f"thaw or remove {path}")


def refuse_excess(path: str | None, step: UsageCheck) -> None:
    """Raise CgroupError where more than the new limit is already in use."""
    text = read_if_there(f"{path}/{step.file}") if path else None
    if text is not None and step.limit <= int(text):
        raise CgroupError(f"rejecting {step.what} {step.limit} <= usage {text}")


def no_controller(step: Setting) -> CgroupError:
    return CgroupError(
        f"cannot set {step.controller} limit: container could not join or create cgroup",
        hint=f"the {step.controller} controller is not mounted, or may not be used by this user",
    )


def clamped(step: Setting, real: str) -> CgroupError:
    bound = "maximum" if int(real) < int(step.value) else "minimum"
    return CgroupError(f"the {bound} allowed {step.file} is {real}, not {step.value}")


def refused(path: str, step: Setting, error: OSError) -> CgroupError:
    """The kernel said no to one value."""
    if error.errno == errno.EBUSY and step.controller == "memory":
        usage = read_if_there(path + "/memory.usage_in_bytes")
        peak = read_if_there(path + "/memory.max_usage_in_bytes")
        return CgroupError(f"unable to set memory limit to {step.value} (current usage: {usage}, peak usage: {peak})")
    hint = None
    if error.errno in GONE:
        hint = f"the {step.controller} controller is not available in this cgroup"
    elif error.errno in DENIED:
        hint = "run as root, or have the cgroup delegated to this user"
    return CgroupError(f"unable to set {step.file} to {step.value!r} in {path}: {reason(error)}", hint=hint)

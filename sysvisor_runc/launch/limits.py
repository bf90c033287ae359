"""What the host sets on the new process because the process itself may not: rlimits, OOM score, scheduling."""

from __future__ import annotations

import os

from sysvisor_runc.errors import LaunchError, SpecError, reason
from sysvisor_runc.kernel import file
from sysvisor_runc.kernel.syscall import buffer, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysvisor_runc.spec.types import IOPriority, Scheduler

# include/uapi/linux/sched.h
_POLICIES = {
    "SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_ISO": 4, "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}  # fmt: skip
_SCHED_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 1, "SCHED_FLAG_RECLAIM": 2, "SCHED_FLAG_DL_OVERRUN": 4, "SCHED_FLAG_KEEP_POLICY": 8,
    "SCHED_FLAG_KEEP_PARAMS": 16, "SCHED_FLAG_UTIL_CLAMP_MIN": 32, "SCHED_FLAG_UTIL_CLAMP_MAX": 64,
}  # fmt: skip
# include/uapi/linux/ioprio.h
_IOPRIO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_IOPRIO_WHO_PROCESS = 1


def raise_rlimits(pid: int, limits: Sequence[tuple[int, str, int, int]]) -> None:
    """Raise the hard limits of `pid` that lie below `limits` (prlimit(2)); 0 is this process.

    The values themselves are the last stage's to set: as low as some are, nothing of ours would get that far.

    Raises:
        LaunchError: a limit cannot be raised: it lies above the caller's own hard limit.
    """
    for resource, name, soft, hard in limits:
        held = buffer(16)
        try:
            syscall("prlimit64", pid, resource, 0, held, operand=name)
            if hard > int.from_bytes(bytes(held)[8:], "little"):
                syscall("prlimit64", pid, resource, bytes(held)[:8] + hard.to_bytes(8, "little"), 0, operand=name)
        except OSError as error:
            hint = "without CAP_SYS_RESOURCE a hard limit cannot be raised" if error.errno == 1 else None
            raise LaunchError(f"error setting rlimit {name} to {soft}:{hard}: {reason(error)}", hint=hint) from error


def set_oom_score_adj(pid: int, value: int | None, lowest: int | None) -> None:
    """Write oom_score_adj, after `lowest`, down to which the container may then go again (proc_pid_oom_score_adj(5)).

    Raises:
        LaunchError: a value below the caller's own, without CAP_SYS_RESOURCE.
    """
    for number in (lowest, value):
        if number is None:
            continue
        try:
            file.write(f"/proc/{pid}/oom_score_adj", str(number))
        except OSError as error:
            hint = "lowering it needs CAP_SYS_RESOURCE" if error.errno == 13 else None
            raise LaunchError(f"process.oomScoreAdj: write {number}: {reason(error)}", hint=hint) from error


def scheduler_attributes(scheduler: Scheduler) -> bytes:
    """struct sched_attr (sched_setattr(2)): size, policy, flags, nice, priority, runtime, deadline, period."""
    policy = _POLICIES.get(scheduler["policy"])
    if policy is None:
        raise SpecError("process.scheduler.policy", f"unknown policy {scheduler['policy']!r}")
    flags = 0
    for flag in scheduler.get("flags") or ():
        if flag not in _SCHED_FLAGS:
            raise SpecError("process.scheduler.flags", f"unknown flag {flag!r}")
        flags |= _SCHED_FLAGS[flag]
    head = (48).to_bytes(4, "little") + policy.to_bytes(4, "little") + flags.to_bytes(8, "little")
    nice = scheduler.get("nice", 0).to_bytes(4, "little", signed=True)
    priority = scheduler.get("priority", 0).to_bytes(4, "little", signed=True)
    times = [scheduler.get("runtime", 0), scheduler.get("deadline", 0), scheduler.get("period", 0)]
    return head + nice + priority + b"".join(n.to_bytes(8, "little") for n in times)


def set_scheduler(pid: int, scheduler: Scheduler) -> None:
    """sched_setattr(2). Raises LaunchError."""
    try:
        syscall("sched_setattr", pid, scheduler_attributes(scheduler), 0, operand=scheduler["policy"])
    except OSError as error:
        hint = "real-time policies need CAP_SYS_NICE"
        if (
            error.errno == 1
            and scheduler["policy"] == "SCHED_DEADLINE"
            and len(os.sched_getaffinity(pid)) != os.cpu_count()
        ):
            hint = "process scheduler can't be used together with AllowedCPUs (linux.resources.cpu.cpus)"
        raise LaunchError(f"error setting scheduler: {error}", hint=hint) from error


def io_priority_value(priority: IOPriority) -> int:
    """The class in the three highest of 16 bits, the level below (ioprio_set(2))."""
    kind = _IOPRIO_CLASSES.get(priority["class"])
    if kind is None:
        raise SpecError("process.ioPriority.class", f"unknown class {priority['class']!r}")
    return kind << 13 | priority.get("priority", 0)


def set_io_priority(pid: int, priority: IOPriority) -> None:
    """ioprio_set(2). Raises LaunchError."""
    try:
        syscall("ioprio_set", _IOPRIO_WHO_PROCESS, pid, io_priority_value(priority), operand=priority["class"])
    except OSError as error:
        raise LaunchError(f"error setting ioPriority: {error}") from error

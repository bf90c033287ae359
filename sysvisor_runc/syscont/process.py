"""Attributes of a process inside: OOM score, limits, AppArmor, environment. For init and for exec."""

from __future__ import annotations

from sysvisor_runc.syscont.capabilities import convert_capabilities

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Process, Rlimit
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Settings

CAP_SYS_RESOURCE = 24

# -1000 would exempt the container from the OOM killer, and with it everything that it starts.
OOM_FLOOR = -999

_INFINITY = 2**64 - 1


def convert_process(process: Process, facts: HostFacts, settings: Settings) -> tuple[Process, list[str]]:
    """A process of a system container, and warnings for the log."""
    warnings: list[str] = []
    process = convert_capabilities(process, facts, settings)
    process = _convert_oom(process, facts, warnings)
    process = _convert_rlimits(process, facts, warnings)
    if "apparmorProfile" in process:
        # A profile written for application containers denies mount(2), which a system container lives by.
        process = process.copy()
        del process["apparmorProfile"]
    return process, warnings


def _convert_oom(process: Process, facts: HostFacts, warnings: list[str]) -> Process:
    given = process.get("oomScoreAdj")
    score = max(OOM_FLOOR, facts.oom_score_adj if given is None else given)
    if score < facts.oom_score_adj and not facts.may(CAP_SYS_RESOURCE):
        warnings.append(f"oomScoreAdj {score} needs CAP_SYS_RESOURCE: {facts.oom_score_adj} is kept")
        score = facts.oom_score_adj
    if score == given or (given is None and score == facts.oom_score_adj):
        return process
    return {**process, "oomScoreAdj": score}


def _convert_rlimits(process: Process, facts: HostFacts, warnings: list[str]) -> Process:
    """Hard limits above the caller's own are lowered to it where raising them would be EPERM."""
    rlimits = process.get("rlimits")
    if not rlimits or facts.may(CAP_SYS_RESOURCE):
        return process
    kept = [_clamped(rlimit, facts, warnings) for rlimit in rlimits]
    return {**process, "rlimits": kept} if kept != rlimits else process


def _clamped(rlimit: Rlimit, facts: HostFacts, warnings: list[str]) -> Rlimit:
    held = facts.rlimits.get(rlimit["type"], (-1, -1))[1]
    limit = _INFINITY if held == -1 else held
    if rlimit["hard"] <= limit:
        return rlimit
    warnings.append(f"{rlimit['type']} {rlimit['hard']} is above the hard limit {limit} and needs CAP_SYS_RESOURCE")
    return {**rlimit, "hard": limit, "soft": min(rlimit["soft"], limit)}


def getenv(process: Process, name: str) -> str | None:
    """Value of a variable in process.env; the last one wins, as in a shell."""
    prefix = name + "="
    return next((entry[len(prefix) :] for entry in reversed(process.get("env", [])) if entry.startswith(prefix)), None)


def with_env(process: Process, variables: dict[str, str]) -> Process:
    """The process with these variables set, in place of earlier values."""
    names = tuple(name + "=" for name in variables)
    env = [entry for entry in process.get("env", ()) if not entry.startswith(names)]
    return {**process, "env": env + [f"{name}={value}" for name, value in variables.items()]}

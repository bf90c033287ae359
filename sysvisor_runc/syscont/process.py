"""Attributes of a process inside: OOM score, limits, AppArmor, environment. For init and for exec."""

from __future__ import annotations

from sysvisor_runc.syscont.capabilities import convert_capabilities

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Process
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.settings import Settings

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


def may_raise(facts: HostFacts) -> bool:
    """Whether the caller may raise hard limits and lower OOM scores."""
    return facts.capabilities >> CAP_SYS_RESOURCE & 1 == 1


def _convert_oom(process: Process, facts: HostFacts, warnings: list[str]) -> Process:
    given = process.get("oomScoreAdj")
    score = max(OOM_FLOOR, facts.oom_score_adj if given is None else given)
    if score < facts.oom_score_adj and not may_raise(facts):
        warnings.append(f"oomScoreAdj {score} needs CAP_SYS_RESOURCE: {facts.oom_score_adj} is kept")
        score = facts.oom_score_adj
    if score == given or (given is None and score == facts.oom_score_adj):
        return process
    return {**process, "oomScoreAdj": score}


def _convert_rlimits(process: Process, facts: HostFacts, warnings: list[str]) -> Process:
    """Hard limits above the caller's own are lowered to it where raising them would be EPERM."""
    if not process.get("rlimits") or may_raise(facts):
        return process
    kept = []
    for rlimit in process["rlimits"]:
        held = facts.rlimits.get(rlimit["type"], (-1, -1))[1]
        limit = _INFINITY if held == -1 else held
        if rlimit["hard"] > limit:
            kind = rlimit["type"]
            warnings.append(f"{kind} {rlimit['hard']} is above the hard limit {limit} and needs CAP_SYS_RESOURCE")
            rlimit = {"type": kind, "hard": limit, "soft": min(rlimit["soft"], limit)}
        kept.append(rlimit)
    return {**process, "rlimits": kept}


def getenv(process: Process, name: str) -> str | None:
    """Value of a variable in process.env; the last one wins, as in a shell."""
    for entry in reversed(process.get("env", ())):
        if entry.startswith(name + "="):
            return entry[len(name) + 1 :]
    return None


def with_env(process: Process, variables: dict[str, str]) -> Process:
    """The process with these variables set, in place of earlier values."""
    names = tuple(name + "=" for name in variables)
    env = [entry for entry in process.get("env", ()) if not entry.startswith(names)]
    return {**process, "env": env + [f"{name}={value}" for name, value in variables.items()]}

"""A user's seccomp profile, made to let a system container work. Pure: profile in, profile out.

Names decide, whatever the architectures: what a name does not stand for on one of them is ignored when compiling.
"""

from __future__ import annotations

from sysvisor_runc.syscont.syscalls import CONDITIONAL, NEEDED, REQUIRED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Seccomp, SeccompSyscall

# A profile with such a default is a block-list: what no rule names goes through, or a tracer judges it.
_PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
_DENYING = ("SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP")


def allow_system_calls(seccomp: Seccomp) -> Seccomp:
    """A copy of the profile that leaves a system container the calls in `syscont.syscalls`.

    An allow-list allows all NEEDED calls, without conditions except for the CONDITIONAL ones. A block-list blocks
    REQUIRED calls no more. Everything else stays as it is.
    """
    result = seccomp.copy()
    rules = seccomp.get("syscalls") or []
    if seccomp.get("defaultAction") in _PERMISSIVE:
        result["syscalls"] = [kept for rule in rules if (kept := _unblocked(rule))["names"]]
    elif seccomp.get("defaultAction"):  # an empty one switches the profile off
        result["syscalls"] = _extended(rules)
    return result


def _unblocked(rule: SeccompSyscall) -> SeccompSyscall:
    if rule["action"] not in _DENYING:
        return rule
    return _with_names(rule, [name for name in rule["names"] if name not in REQUIRED])


def _extended(rules: list[SeccompSyscall]) -> list[SeccompSyscall]:
    """The rules of an allow-list, less what denies or restricts NEEDED calls, and one that allows those missing."""
    result: list[SeccompSyscall] = []
    decided: set[str] = set()
    for rule in rules:
        for kept in _freed(rule):
            result.append(kept)
            if kept["action"] not in _DENYING:
                decided.update(kept["names"])
    missing = sorted(NEEDED - decided)
    if missing:
        result.append({"names": missing, "action": "SCMP_ACT_ALLOW"})
    return result


def _freed(rule: SeccompSyscall) -> list[SeccompSyscall]:
    """What `rule` becomes: at most a rule as it was and one without its conditions."""
    conditional = bool(rule.get("args"))
    if rule["action"] in _DENYING:
        kept = [name for name in rule["names"] if name not in NEEDED or (conditional and name in CONDITIONAL)]
        return [_with_names(rule, kept)] if kept else []
    if not conditional:
        return [rule]
    # Also where a tracer or an agent is asked (TRACE, NOTIFY): it then sees every such call, and none goes past it.
    free = [name for name in rule["names"] if name in NEEDED and name not in CONDITIONAL]
    if not free:
        return [rule]
    bound = [name for name in rule["names"] if name not in free]
    unconditional = _with_names(rule, free)
    del unconditional["args"]
    return [unconditional, *([_with_names(rule, bound)] if bound else [])]


def _with_names(rule: SeccompSyscall, names: list[str]) -> SeccompSyscall:
    result = rule.copy()
    result["names"] = names
    return result

"""Capabilities of a system container's processes.

Measured on Linux 6.18 (set_cred_user_ns in kernel/user_namespace.c): entering a new user namespace gives the full
permitted, effective *and bounding* sets, whatever the caller's bounding set lacks. Inside, nothing is ever missing,
and what the host withholds (raising hard rlimits without CAP_SYS_RESOURCE) the kernel checks against the initial
user namespace anyway. Without a user namespace the caller's set is the limit: `without_lacking`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from sysvisor_runc.spec.types import Capabilities, Process
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Settings

    SetName = Literal["bounding", "effective", "inheritable", "permitted", "ambient"]

_SETS: tuple[SetName, ...] = ("bounding", "effective", "inheritable", "permitted", "ambient")


def convert_capabilities(process: Process, facts: HostFacts, settings: Settings) -> Process:
    """Everything for root, nothing but the bounding set for others; for init and for exec.

    Root's inheritable and ambient sets stay empty: root regains everything at each execve without them, and a
    non-empty inheritable set is what CVE-2022-24769 and CVE-2022-29162 were about. Other users keep the full bounding
    set, so that `su` and set-user-ID programs work.
    """
    if settings.honor_caps:
        return process
    full = list(facts.cap_names)
    capabilities: Capabilities = {"bounding": full, "effective": [], "inheritable": [], "permitted": [], "ambient": []}
    if process["user"]["uid"] == 0:
        capabilities["effective"] = full
        capabilities["permitted"] = full
    return {**process, "capabilities": capabilities}


def without_lacking(
    capabilities: Capabilities, names: tuple[str, ...], held: int
) -> tuple[Capabilities, tuple[str, ...]]:
    """The sets reduced to what the caller holds, and what was dropped. `names[n]` is bit n of the mask `held`.

    For launches without a user namespace, where asking the kernel for more is EPERM. A name that is not in `names` is
    left to whoever applies the sets.
    """
    lacking = {name for bit, name in enumerate(names) if not held >> bit & 1}
    reduced: Capabilities = {}
    dropped: dict[str, None] = {}
    for which in _SETS:
        if which in capabilities:
            reduced[which] = [name for name in capabilities[which] if name not in lacking]
            dropped.update((name, None) for name in capabilities[which] if name in lacking)
    return reduced, tuple(dropped)

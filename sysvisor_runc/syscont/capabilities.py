"""Capabilities of a system container's processes: everything for root, for init and for exec."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Capabilities, Process
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.settings import Settings

# Nothing here depends on what the caller holds. Entering a new user namespace gives the full permitted, effective *and
# bounding* sets, also where the caller's bounding set lacks some (set_cred_user_ns, kernel/user_namespace.c; measured
# on Linux 6.18 by a caller without CAP_SYS_RESOURCE). What such a caller cannot do, the kernel checks against the
# initial user namespace: see `process`. For launches without a user namespace there is `lacking`.


def convert_capabilities(process: Process, facts: HostFacts, settings: Settings) -> Process:
    """The full sets for root, nothing but the bounding set for others, whom `su` then serves."""
    if settings.honor_caps:
        return process
    full = list(facts.cap_names)
    capabilities: Capabilities = {"bounding": full, "effective": [], "permitted": [], "inheritable": [], "ambient": []}
    if process["user"]["uid"] == 0:
        # Inheritable and ambient stay empty: root regains everything at each execve without them, and a non-empty
        # inheritable set is what CVE-2022-24769 and CVE-2022-29162 were about.
        capabilities["effective"] = capabilities["permitted"] = full
    return {**process, "capabilities": capabilities}

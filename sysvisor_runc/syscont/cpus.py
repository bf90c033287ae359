"""`--cpuset-from-quota`: as many CPUs as the quota is worth, for programs that count them by their affinity.

`nproc` and many run times ask sched_getaffinity(2), which knows cpusets and no quotas. Loaded only where it is asked
for.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysvisor_runc.spec.types import LinuxResources, Spec
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Traits

_PERIOD = 100_000  # the kernel's default, in microseconds


def convert_cpus(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Narrow the cpuset; nothing to do without a quota, or with one that is worth all CPUs."""
    linux = spec.get("linux", {})
    resources = linux.get("resources", {})
    cpu = resources.get("cpu", {})
    allowed = [cpu_ for cpu_ in facts.cpus if cpu_ in _parse(cpu.get("cpus") or "", facts.cpus)]
    count = _worth(resources)
    if not count or count >= len(allowed):
        return spec
    chosen = _choose(allowed, count, facts.container_id)
    cpus = ",".join(map(str, chosen))
    return {**spec, "linux": {**linux, "resources": {**resources, "cpu": {**cpu, "cpus": cpus}}}}


def _worth(resources: LinuxResources) -> int:
    """How many CPUs the quota keeps busy, rounded up; 0 for no quota."""
    cpu = resources.get("cpu", {})
    quota, period = cpu.get("quota") or 0, cpu.get("period") or _PERIOD
    unified = (resources.get("unified") or {}).get("cpu.max", "").split()
    if unified and unified[0].isdigit():
        quota = int(unified[0])
        period = int(unified[1]) if len(unified) > 1 and unified[1].isdigit() else _PERIOD
    return -(-quota // period) if quota > 0 else 0


def _choose(allowed: Sequence[int], count: int, container_id: str) -> list[int]:
    """Neighbours, beginning somewhere that depends on the container: they shall not all share the first CPUs."""
    from _blake2 import blake2s

    start = int.from_bytes(blake2s(container_id.encode(), digest_size=4).digest(), "big") % len(allowed)
    return sorted((*allowed[start:], *allowed[:start])[:count])


def _parse(text: str, default: Sequence[int]) -> frozenset[int]:
    """A list of CPUs as cpuset(7) writes it; empty text is the default."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit() and (not last or last.isdigit()):
            found.update(range(int(first), int(last or first) + 1))
    return frozenset(found or default)

"""Sysctls of the spec that mean something else inside a user namespace."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Spec
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Traits

_PING_GROUPS = "net.ipv4.ping_group_range"


def convert_sysctl(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Keep the groups that may ping within those that are mapped.

    Docker asks for `0 2147483647` wherever it knows of no user namespace; the kernel answers EINVAL for an unmapped
    group (ipv4_ping_group_range, net/ipv4/sysctl_net_ipv4.c) and the container would not start.
    """
    linux = spec.get("linux", {})
    sysctl = linux.get("sysctl", {})
    mapped = linux.get("gidMappings")
    if traits.ids is None or not mapped:
        return spec
    last = max(entry["containerID"] + entry["size"] for entry in mapped) - 1
    changed = {
        name: clamped
        for name, value in sysctl.items()
        if name.replace("/", ".") == _PING_GROUPS and (clamped := _clamped(value, last)) != value
    }
    return {**spec, "linux": {**linux, "sysctl": sysctl | changed}} if changed else spec


def _clamped(value: str, last: int) -> str:
    words = value.split()
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        return value  # the kernel's to refuse
    low, high = int(words[0]), int(words[1])
    # "1 0" is how the kernel spells nobody.
    return value if high <= last or low > high else f"{min(low, last)} {last}"

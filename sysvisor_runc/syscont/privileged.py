"""What `--privileged` asks for beyond a machine: all of the host's devices. Loaded only for a spec that does."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Device, DeviceCgroup
    from sysvisor_runc.syscont.traits import Traits


def only_named(
    given: list[DeviceCgroup], devices: list[Device], traits: Traits
) -> tuple[list[DeviceCgroup], list[Device]]:
    """Allow what rules of its own allow, and make no other node, if the rules end up with all devices.

    A rule without a type, or with type `a`, is for all of them, and forgets the rules before it.
    """
    last = max(index for index, rule in enumerate(given) if rule.get("type", "") in "a")
    if not given[last]["allow"]:
        return given, devices
    rules = [rule for rule in given if rule.get("type", "") not in "a"]
    named = {(rule.get("type"), rule.get("major", -1), rule.get("minor", -1)) for rule in rules if rule["allow"]}
    traits.warnings.append(
        "linux.resources.devices: a system container has not all of the host's devices; name those that it needs"
    )
    kept = [device for device in devices if (device["type"], device.get("major"), device.get("minor")) in named]
    return [{"allow": False, "access": "rwm"}, *rules], kept

"""Devices that a machine has, and whose files /dev holds: real nodes that belong to the container's root."""

from __future__ import annotations

from sysvisor_runc.syscont.facts import inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Device, DeviceCgroup, LinuxResources, Spec
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Traits


def convert_devices(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Add the devices that the kernel made safe for user namespaces, where the host has them: FUSE and TUN.

    Rootless Podman, VPNs and many file systems want them. A device of the spec at the same path wins. But who asks for
    all devices, as `--privileged` does, gets these alone: the host's disks would be the host.
    """
    traits.host_nodes = facts.may_mknod
    linux = spec.get("linux", {})
    devices = list(linux.get("devices", ()))
    resources: LinuxResources = {**linux.get("resources", {})}
    rules = list(resources.get("devices", ()))
    for given in rules:
        if given["allow"] and given.get("type", "") in "a":
            from sysvisor_runc.syscont.privileged import only_named

            rules, devices = only_named(rules, devices, traits)
            break
    taken = {inside(device["path"]) for device in devices}
    for path, (major, minor) in facts.machine_devices.items():
        if path not in taken:
            device: Device = {"path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o666}
            rule: DeviceCgroup = {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
            devices.append(device)
            rules.append(rule)
    if rules:
        resources["devices"] = rules
    return {**spec, "linux": {**linux, "devices": devices, "resources": resources}}

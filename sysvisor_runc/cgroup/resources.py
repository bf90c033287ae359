"""`linux.resources` → what is written into the container's cgroups, for the machine's cgroup version. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.devices import Devices
    from sysvisor_runc.cgroup.settings import Setting, UsageCheck
    from sysvisor_runc.spec.types import LinuxResources


def convert(resources: LinuxResources, kind: str, *, devices: bool = True) -> list[Setting | UsageCheck | Devices]:
    """`resources` as an ordered list for a layout of `kind` (`v1`, `hybrid` or `v2`).

    The device rules come along unless `devices` is False, as for an update: even no rules at all mean the default ones.

    Raises:
        SpecError: values that contradict each other, or `unified` without cgroup v2.
    """
    steps: list[Setting | UsageCheck | Devices] = []
    if devices:
        from sysvisor_runc.cgroup.devices import Devices

        steps.append(Devices(resources.get("devices", [])))
    if not resources or list(resources) == ["devices"]:
        return steps  # the usual case, and the converters are large
    if kind == "v2":
        from sysvisor_runc.cgroup.resources_v2 import convert as convert_v2

        steps += convert_v2(resources)
    else:
        from sysvisor_runc.cgroup.resources_v1 import convert as convert_v1

        steps += convert_v1(resources)
    return steps

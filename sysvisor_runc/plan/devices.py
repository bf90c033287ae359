"""The device nodes and links of a container's /dev (runtime-spec config-linux.md "Default Devices"). Pure."""

from __future__ import annotations

from sysvisor_runc.child.nodes import MakeDevice, Symlink
from sysvisor_runc.plan.mounts import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysvisor_runc.child.mounts import Operation
    from sysvisor_runc.spec.types import Device

_DEFAULTS = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)
_LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
)


def device_operations(devices: Sequence[Device], *, bind: bool, mounted: set[str]) -> list[Operation]:
    """Make the default devices and the spec's own, which replace defaults at the same path.

    `bind` shows the host's nodes instead, as a user namespace needs; paths in `mounted` have a mount of their own.
    """
    wanted: dict[str, Operation] = {
        path: MakeDevice(path, "c", major, minor, 0o666, 0, 0, bind=bind) for path, major, minor in _DEFAULTS
    }
    for device in devices:
        path = clean(device["path"])
        if path == "/dev/ptmx":
            continue  # always the link into the container's own devpts
        mode = device.get("fileMode", 0o666) & 0o7777
        wanted[path] = MakeDevice(
            path,
            device["type"],
            device.get("major", 0),
            device.get("minor", 0),
            mode,
            device.get("uid", 0),
            device.get("gid", 0),
            bind=bind,
        )
    made = [operation for path, operation in wanted.items() if path not in mounted]
    links: list[Operation] = [Symlink(target, path) for target, path in _LINKS]
    return [*made, *links, Symlink("pts/ptmx", "/dev/ptmx", replace=True)]

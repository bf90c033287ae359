"""Specs and facts to convert: an ordinary host, a minimal bundle, and whatever a test changes."""

from typing import Any

from sysvisor_runc.kernel import capability
from sysvisor_runc.spec.types import Mount, Namespace, Spec
from sysvisor_runc.syscont.facts import HostFacts, PathFacts
from sysvisor_runc.syscont.settings import Settings
from sysvisor_runc.syscont.traits import Traits

EXT4, TMPFS, XFS, OVERLAY, FUSE = 0xEF53, 0x01021994, 0x58465342, 0x794C7630, 0x65735546
ALL_CAPABILITIES = (1 << len(capability.NAMES)) - 1
SYS_RESOURCE = 1 << 24
RANGE = (231072, 231072, 65536)
REQUIRED = ("pid", "ipc", "uts", "mount", "network")


def facts(**changes: Any) -> HostFacts:
    values: dict[str, Any] = {
        "container_id": "web",
        "rootfs_path": "/bundles/web/rootfs",
        "rootfs": PathFacts(EXT4),
        "kernel": (6, 18),
        "capabilities": ALL_CAPABILITIES,
        "cap_names": capability.NAMES,
        "id_range": RANGE,
    }
    return HostFacts(**values | changes)


def spec(*args: str, **changes: Any) -> Spec:
    namespaces: list[Namespace] = [{"type": kind} for kind in REQUIRED]
    result: Spec = {
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": list(args or ("sh",)), "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]},
        "mounts": [],
        "linux": {"namespaces": namespaces},
    }
    for name, value in changes.items():
        if name in ("process", "linux"):
            result[name] = {**result[name], **value}  # type: ignore[literal-required]
        else:
            result[name] = value  # type: ignore[literal-required]
    return result


def traits(**changes: Any) -> Traits:
    result = Traits(Settings())
    result.ids = RANGE
    for name, value in changes.items():
        setattr(result, name, value)
    return result


def bind(source: str, destination: str, *options: str) -> Mount:
    return {"destination": destination, "type": "bind", "source": source, "options": ["rbind", *options]}


def tmpfs(destination: str, *options: str) -> Mount:
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": list(options)}


def by_destination(converted: Spec) -> dict[str, Mount]:
    return {mount["destination"]: mount for mount in converted["mounts"]}


def places(converted: Spec) -> list[str]:
    return [mount["destination"] for mount in converted["mounts"]]


def env(converted: Spec) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in converted["process"]["env"])

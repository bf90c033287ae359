"""The configurations that `spec` writes. Only that command imports this.

Keys stand in the order in which runc writes them, so that the files compare line by line.
"""

from __future__ import annotations

import os

from sysvisor_runc.spec.schema import CAPABILITIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Linux, Mount, Namespace, Process, Spec

_VERSION = "1.3.0"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def default_spec(
    *,
    conforming: bool = False,
    rootless: bool = False,
    id_map: tuple[int, int, int] | None = None,
    unified: bool | None = None,
) -> Spec:
    """What `spec` writes: by default a configuration that `run` turns into a system container.

    `conforming` asks for the example that runc writes, `rootless` for runc's variant of it for the calling user.
    `id_map` (first host uid, first host gid, size) adds a user namespace with these maps, for the two full variants.
    `unified` says whether the host has cgroup v2 alone, which decides on runc's cgroup namespace (None: look).
    """
    if unified is None:
        unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    if rootless:
        return _to_rootless(_conforming(unified))
    spec = _conforming(unified) if conforming else _system()
    if id_map is not None:
        uid, gid, size = id_map
        _add_user_namespace(spec, uid, gid, size)
    return spec


def _conforming(unified: bool) -> Spec:
    few = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    process = _process()
    process["capabilities"] = {"bounding": few, "effective": list(few), "permitted": list(few)}
    process["rlimits"] = [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}]
    process["noNewPrivileges"] = True
    namespaces = ["pid", "network", "ipc", "uts", "mount"]
    if unified:
        namespaces.append("cgroup")
    return {
        "ociVersion": _VERSION,
        "process": process,
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "runc",
        "mounts": _mounts(["ro"]),
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": _namespaces(namespaces),
            "maskedPaths": [
                "/proc/acpi",
                "/proc/asound",
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/timer_list",
                "/proc/timer_stats",
                "/proc/sched_debug",
                "/sys/firmware",
                "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


def _system() -> Spec:
    """A machine: all capabilities (within its own user namespace), a writable root and its own cgroups.

    No `noNewPrivileges`, since `su` and `sudo` must work, and no rlimits: systemd and Docker need more open files than
    1024 and, without privilege on the host, could not raise the limit.
    """
    every = sorted(CAPABILITIES)
    process = _process()
    process["capabilities"] = {
        "bounding": every,
        "effective": list(every),
        "inheritable": list(every),
        "permitted": list(every),
        "ambient": list(every),
    }
    return {
        "ociVersion": _VERSION,
        "process": process,
        "root": {"path": "rootfs"},
        "hostname": "syscont",
        "mounts": _mounts([]),
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": _namespaces(["pid", "network", "ipc", "uts", "mount", "cgroup"]),
            "maskedPaths": [
                "/proc/kcore",
                "/proc/latency_stats",
                "/proc/timer_list",
                "/proc/timer_stats",
                "/proc/sched_debug",
                "/sys/firmware",
                "/proc/scsi",
            ],
            "readonlyPaths": [
                "/proc/asound",
                "/proc/bus",
                "/proc/fs",
                "/proc/irq",
                "/proc/sys",
                "/proc/sysrq-trigger",
            ],
        },
    }


def _process() -> Process:
    return {
        "terminal": True,
        "user": {"uid": 0, "gid": 0},
        "args": ["sh"],
        "env": [_PATH, "TERM=xterm"],
        "cwd": "/",
    }


def _mounts(cgroup_options: list[str]) -> list[Mount]:
    quiet = ["nosuid", "noexec", "nodev"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        _mount("/dev/shm", "tmpfs", "shm", [*quiet, "mode=1777", "size=65536k"]),
        _mount("/dev/mqueue", "mqueue", "mqueue", list(quiet)),
        _mount("/sys", "sysfs", "sysfs", [*quiet, "ro"]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*quiet, "relatime", *cgroup_options]),
    ]


def _mount(destination: str, kind: str, source: str, options: list[str]) -> Mount:
    return {"destination": destination, "type": kind, "source": source, "options": options}


def _namespaces(types: list[str]) -> list[Namespace]:
    return [{"type": kind} for kind in types]


def _add_user_namespace(spec: Spec, uid: int, gid: int, size: int) -> None:
    # The maps come first in the file.
    linux: Linux = {
        "uidMappings": [{"containerID": 0, "hostID": uid, "size": size}],
        "gidMappings": [{"containerID": 0, "hostID": gid, "size": size}],
    }
    linux.update(spec["linux"])
    linux["namespaces"].append({"type": "user"})
    spec["linux"] = linux


def _to_rootless(spec: Spec) -> Spec:
    """What a user without privilege cannot have goes: a network of its own, cgroup limits, a new sysfs, other ids."""
    linux = spec["linux"]
    linux["namespaces"] = [namespace for namespace in linux["namespaces"] if namespace["type"] != "network"]
    del linux["resources"]
    _add_user_namespace(spec, os.geteuid(), os.getegid(), 1)
    for index, mount in enumerate(spec["mounts"]):
        if mount["destination"] == "/sys":
            spec["mounts"][index] = _mount("/sys", "none", "/sys", ["rbind", "nosuid", "noexec", "nodev", "ro"])
        elif "options" in mount:
            mount["options"] = [option for option in mount["options"] if not option.startswith(("gid=", "uid="))]
    return spec

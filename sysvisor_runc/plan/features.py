"""What this runtime can do, in the form of the runtime specification's features.md. Pure: it speaks of the program.

The names come from the tables that the runtime itself works by, so that the answer cannot drift from the truth.
"""

from __future__ import annotations

from sysvisor_runc.kernel import capability
from sysvisor_runc.plan import seccomp_compile
from sysvisor_runc.spec import schema

# Prefixes count as well. Whoever may set these annotations can reach beyond the container.
UNSAFE_ANNOTATIONS = ("bundle", "org.criu.config", "org.systemd.property.", "org.sysvisor.")


def describe(
    versions: tuple[str, str], tags: tuple[str, ...], seccomp_flags: list[str], annotations: dict[str, str]
) -> dict[str, object]:
    """The features object.

    `versions` are the oldest and newest understood of the runtime specification, `tags` the build tags,
    `seccomp_flags` those that the running kernel takes, `annotations` the versions of what was built in.
    """
    return {
        "ociVersionMin": versions[0],
        "ociVersionMax": versions[1],
        "hooks": list(schema.HOOKS),
        "mountOptions": sorted(schema.MOUNT_OPTIONS),
        "linux": _linux(tags, seccomp_flags),
        "annotations": annotations,
        "potentiallyUnsafeConfigAnnotations": list(UNSAFE_ANNOTATIONS),
    }


def _linux(tags: tuple[str, ...], seccomp_flags: list[str]) -> dict[str, object]:
    return {
        "namespaces": sorted(schema.NAMESPACES),
        "capabilities": list(capability.NAMES),
        "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": False, "rdma": True},
        "seccomp": _seccomp(seccomp_flags) if "seccomp" in tags else {"enabled": False},
        "apparmor": {"enabled": "apparmor" in tags},
        "selinux": {"enabled": "selinux" in tags},
        "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
        "memoryPolicy": {"modes": sorted(schema.MPOL_MODES), "flags": sorted(schema.MPOL_FLAGS)},
        "mountExtensions": {"idmap": {"enabled": True}},
        "netDevices": {"enabled": True},
    }


def _seccomp(supported: list[str]) -> dict[str, object]:
    return {
        "enabled": True,
        "actions": sorted(seccomp_compile.ACTIONS),
        "operators": sorted(seccomp_compile.OPERATORS),
        "archs": sorted(seccomp_compile.ARCHITECTURES),
        "knownFlags": sorted(seccomp_compile.FLAGS),
        "supportedFlags": sorted(supported),
    }

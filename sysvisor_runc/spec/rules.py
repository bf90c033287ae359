"""What a well-formed configuration must mean to be usable: rules between fields, as runc and the kernel enforce them.

Runs after the shape check, so every field has its type. Looks at the host for two things only: whether a network
namespace given by path is the caller's own, and whether SELinux is there.
"""

from __future__ import annotations

import os

from sysvisor_runc.errors import SpecError
from sysvisor_runc.spec import schema
from sysvisor_runc.spec.view import View

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from sysvisor_runc.spec.types import LinuxResources, Process, Seccomp, Spec

_HOST_NAME_MAX = 64

_IPC_SYSCTLS = frozenset(
    [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ]
)


def check_spec(spec: Spec, warn: list[str], *, runnable: bool, rootless: bool, added: Collection[str]) -> None:
    """Raises SpecError for the first rule that is broken; see `validate` for the arguments."""
    _check_version(spec["ociVersion"])
    view = View(spec, warn, rootless, added)
    present: Collection[str] = spec
    if "root" in present:
        if not spec["root"]["path"]:
            raise SpecError("root.path", "must not be empty")
    elif runnable:
        raise SpecError("root", "is required but missing: root must be specified")
    if "process" in present:
        check_process(spec["process"])
    elif runnable:
        raise SpecError("process", "is required but missing: process property must not be empty")
    _check_namespaces(view)
    _check_names(view)
    _check_mappings(view)
    _check_mounts(view)
    _check_sysctls(view)
    _check_linux(view)
    _check_hooks(view)


def _check_version(version: str) -> None:
    # Pre-releases of 1.0 and their suffixes (1.0.2-dev) are in use.
    if version.split(".", maxsplit=1)[0] != "1":
        raise SpecError("ociVersion", f"unsupported version {version!r}, expected 1.x")


def check_process(process: Process) -> None:
    """The rules of a process, alone or inside a configuration."""
    cwd = process["cwd"]
    if not cwd.startswith("/"):
        problem = "Cwd must be an absolute path" if cwd else "Cwd property must not be empty"
        raise SpecError("process.cwd", problem)
    if not process.get("args"):
        raise SpecError("process.args", "args must not be empty")
    for index, variable in enumerate(process.get("env", ())):
        if variable.find("=") < 1:
            problem = "name cannot be empty" if "=" in variable else "missing '='"
            raise SpecError(f"process.env[{index}]", f"invalid environment variable {variable!r}: {problem}")
    _check_rlimits(process)
    if "scheduler" in process or "ioPriority" in process or "execCPUAffinity" in process:
        from sysvisor_runc.spec import special

        special.check_scheduling(process)
    if process.get("selinuxLabel") and not os.path.exists("/sys/fs/selinux/enforce"):
        problem = "selinux label is specified in config, but selinux is disabled or not supported"
        raise SpecError("process.selinuxLabel", problem)


def _check_rlimits(process: Process) -> None:
    seen = set()
    for index, limit in enumerate(process.get("rlimits", ())):
        path = f"process.rlimits[{index}]"
        if limit["type"] in seen:
            raise SpecError(path + ".type", f"{limit['type']} is given twice")
        seen.add(limit["type"])
        if limit["soft"] > limit["hard"]:
            raise SpecError(path, f"soft limit {limit['soft']} is above the hard limit {limit['hard']}")


def _check_namespaces(view: View) -> None:
    for index, namespace in enumerate(view.linux.get("namespaces", ())):
        kind = namespace["type"]
        if kind in view.spaces:
            raise SpecError(f"linux.namespaces[{index}].type", f"malformed spec file: duplicated ns {kind!r}")
        view.spaces[kind] = namespace.get("path", "")
    for field in ("maskedPaths", "readonlyPaths"):
        if view.linux.get(field) and not view.has("mount"):
            raise SpecError(f"linux.{field}", "unable to restrict sys entries without a private MNT namespace")


def _check_names(view: View) -> None:
    for field in ("hostname", "domainname"):
        name = str(view.spec.get(field, ""))
        if name and not view.has("uts"):
            raise SpecError(field, f"unable to set {field} without a private UTS namespace")
        if len(name.encode("utf-8", "surrogatepass")) > _HOST_NAME_MAX:
            raise SpecError(field, f"is longer than {_HOST_NAME_MAX} bytes")
    if view.linux.get("netDevices"):
        from sysvisor_runc.spec import special

        special.check_net_devices(view)


def _check_mappings(view: View) -> None:
    linux = view.linux
    uids, gids = linux.get("uidMappings"), linux.get("gidMappings")
    if "user" not in view.spaces:
        if (uids is not None or gids is not None) and "user" not in view.added:
            problem = "user namespace mappings specified, but user namespace isn't enabled in the config"
            raise SpecError("linux.gidMappings" if uids is None else "linux.uidMappings", problem)
        if view.rootless and "user" not in view.added:
            raise SpecError("linux.namespaces", "rootless container requires user namespaces")
    elif view.spaces["user"]:
        # Podman gives mappings beside the path: those of the namespace.
        return
    elif not uids and not gids and "user" not in view.added:
        problem = "user namespaces enabled, but no namespace path to join nor mappings to apply specified"
        raise SpecError("linux.namespaces", problem)
    if not uids and not gids:
        # The conversion is going to choose them, or there is no user namespace.
        return
    from sysvisor_runc.spec import special

    special.check_map("linux.uidMappings", "uid", uids)
    special.check_map("linux.gidMappings", "gid", gids)


def _check_mounts(view: View) -> None:
    for index, mount in enumerate(view.spec.get("mounts", ())):
        if not mount["destination"].startswith("/"):
            view.warn.append(
                f"mounts[{index}].destination: mount destination {mount['destination']} is not absolute, "
                "it is taken to be relative to /"
            )
        options = mount.get("options", ())
        if "bind" in options or "rbind" in options:
            for option in options:
                if option not in schema.MOUNT_OPTIONS:
                    problem = f"bind mounts cannot have any filesystem-specific options applied, such as {option!r}"
                    raise SpecError(f"mounts[{index}].options", problem)
        if "uidMappings" in mount or "gidMappings" in mount or "idmap" in options or "ridmap" in options:
            from sysvisor_runc.spec import special

            special.check_idmap(view, f"mounts[{index}]", mount)


def _check_sysctls(view: View) -> None:
    for key in view.linux.get("sysctl", ()):
        name = sysctl_name(key)
        problem = None
        if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
            if not view.has("ipc"):
                problem = f"sysctl {name!r} is not allowed in the hosts ipc namespace"
        elif name.startswith("net."):
            if not view.has("network") or _is_own_network(view.spaces.get("network", "")):
                problem = f"sysctl {name!r} not allowed in host network namespace"
        elif name == "kernel.hostname" and view.has("uts"):
            problem = f"sysctl {name!r} is not allowed as it conflicts with the OCI 'hostname' field"
        elif name.startswith("user."):
            if not view.has("user"):
                problem = f"setting ucounts without a user namespace not allowed: {name}"
        elif name != "kernel.domainname" or not view.has("uts"):
            problem = f"sysctl {name!r} is not in a separate kernel namespace"
        if problem:
            raise SpecError(f'linux.sysctl["{key}"]', problem)


def sysctl_name(key: str) -> str:
    """The name with dots between its parts; whichever of `.` and `/` comes first in `key` separates (sysctl(8))."""
    dot, slash = key.find("."), key.find("/")
    if slash == -1 or -1 < dot < slash:
        return key
    return key.translate({ord("."): "/", ord("/"): "."})


def _is_own_network(path: str) -> bool:
    if not path:
        return False
    try:
        theirs, ours = os.stat(path), os.stat("/proc/self/ns/net")
    except OSError:
        # Joining it is going to fail with a better message.
        return False
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


def _check_linux(view: View) -> None:
    linux = view.linux
    if "resources" in linux:
        check_resources(linux["resources"], view.warn, "linux.resources")
    if "seccomp" in linux:
        _check_seccomp(linux["seccomp"])
    if "memoryPolicy" in linux or "timeOffsets" in linux:
        from sysvisor_runc.spec import special

        if "memoryPolicy" in linux:
            special.check_memory_policy(linux["memoryPolicy"])
        if "timeOffsets" in linux:
            special.check_time_offsets(view)
    if linux.get("personality", {}).get("flags"):
        view.warn.append("linux.personality.flags: ignored, no flag is defined yet")
    clos = linux.get("intelRdt", {}).get("closID", "")
    if clos in (".", "..") or (len(clos) > 1 and "/" in clos):
        raise SpecError("linux.intelRdt.closID", f"invalid intelRdt.ClosID {clos!r}")


def check_resources(resources: LinuxResources, warn: list[str], path: str) -> None:
    """The rules of resource limits, alone or inside a configuration."""
    for index, device in enumerate(resources.get("devices", ())):
        access = device.get("access", "")
        if not access:
            raise SpecError(f"{path}.devices[{index}].access", f"device access at {index} field cannot be empty")
        if access.strip("rwma"):  # runc takes any letter; an "a" is seen in the wild and means nothing
            raise SpecError(f"{path}.devices[{index}].access", f"unknown device access {access!r}, expected r, w and m")
    if resources.get("hugepageLimits"):
        from sysvisor_runc.spec import special

        special.check_page_sizes(f"{path}.hugepageLimits", resources["hugepageLimits"])
    memory = resources.get("memory", {})
    if "kernel" in memory or "kernelTCP" in memory:
        warn.append(f"{path}.memory.kernel: kernel memory settings are ignored")


def _check_seccomp(seccomp: Seccomp) -> None:
    path = "linux.seccomp"
    syscalls = seccomp.get("syscalls", ())
    if not seccomp["defaultAction"] and syscalls:
        raise SpecError(f"{path}.defaultAction", "is required but missing")
    if seccomp["defaultAction"] == "SCMP_ACT_NOTIFY":
        raise SpecError(f"{path}.defaultAction", "SCMP_ACT_NOTIFY cannot be used as default action")
    for index, syscall in enumerate(syscalls):
        if syscall["action"] == "SCMP_ACT_NOTIFY" and "write" in syscall["names"]:
            # The process that has loaded the filter must still be able to hand the listener over.
            problem = "SCMP_ACT_NOTIFY cannot be used for the write syscall"
            raise SpecError(f"{path}.syscalls[{index}].action", problem)
        if "" in syscall["names"]:
            raise SpecError(f"{path}.syscalls[{index}].names", "empty string is not a valid syscall")


def _check_hooks(view: View) -> None:
    for kind, hooks in view.spec.get("hooks", {}).items():
        if kind not in schema.HOOKS or not isinstance(hooks, list):
            continue
        for index, hook in enumerate(hooks):
            if not hook["path"]:
                raise SpecError(f"hooks.{kind}[{index}].path", "must not be empty")
            if not hook["path"].startswith("/"):
                view.warn.append(f"hooks.{kind}[{index}].path: {hook['path']} is not absolute")

"""A system container in words, one line per fact: for `--debug` and for the golden tests. Loaded only for those."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Mount, Process, Spec
    from sysvisor_runc.syscont.traits import Traits


def describe(spec: Spec, traits: Traits) -> list[str]:
    """Lines in the order in which the launch meets what they tell."""
    linux = spec.get("linux", {})
    lines = [_joined("namespace", ns["type"], ns.get("path", "")) for ns in linux.get("namespaces", ())]
    for kind, mappings in (("uids", linux.get("uidMappings", ())), ("gids", linux.get("gidMappings", ()))):
        lines += [f"{kind} {entry['containerID']} {entry['hostID']} {entry['size']}" for entry in mappings]
    how = "id-mapped" if traits.rootfs_idmap else "chowned" if traits.chown_rootfs else "as it is"
    if traits.rootfs_layers is not None:
        how = f"{len(traits.rootfs_layers.paths())} layers id-mapped"
    lines.append(_joined("rootfs", spec["root"]["path"], how, "read-only" if spec["root"].get("readonly") else ""))
    lines += [_mount(mount) for mount in spec.get("mounts", ())]
    lines += [f"device {device['path']}" for device in linux.get("devices", ())]
    lines += [f"write {path} {text!r}" for path, text in traits.run_host_files.items()]
    lines += [f"node {path} {kind}" for path, kind in traits.run_host_nodes.items()]
    lines += [f"link {path} {target}" for path, target in traits.links.items()]
    lines += [f"credential {traits.credentials_dir}/{name}" for name in traits.credentials]
    lines += [f"sysctl {name} = {value}" for name, value in linux.get("sysctl", {}).items()]
    lines += [f"mask {path}" for path in linux.get("maskedPaths", ())]
    lines += [f"read-only {path}" for path in linux.get("readonlyPaths", ())]
    lines += _process(spec["process"])
    lines += _traits(traits)
    return lines + [f"warning: {warning}" for warning in traits.warnings]


def _joined(*words: str) -> str:
    return " ".join(word for word in words if word)


def _mount(mount: Mount) -> str:
    return _joined(
        "mount",
        mount["destination"],
        mount.get("type", ""),
        mount.get("source", ""),
        ",".join(mount.get("options", ())),
    )


def _process(process: Process) -> list[str]:
    lines = [f"args {' '.join(process['args'])}", f"user {process['user']['uid']}:{process['user']['gid']}"]
    lines += [f"env {entry}" for entry in process.get("env", ())]
    for which, names in process.get("capabilities", {}).items():
        if isinstance(names, list):
            lines.append(f"capabilities {which} {len(names)}")
    lines += [f"rlimit {limit['type']} {limit['soft']} {limit['hard']}" for limit in process.get("rlimits", ())]
    if "oomScoreAdj" in process:
        lines.append(f"oom score {process['oomScoreAdj']}")
    return lines


def _traits(traits: Traits) -> list[str]:
    lines = [f"init {traits.init_kind}"]
    if traits.stop_signal is not None:
        lines.append(f"stop signal {traits.stop_signal}")
    if traits.delegate_cgroup:
        lines.append("delegate cgroup")
    if traits.oom_score_adj_min is not None:
        lines.append(f"oom score floor {traits.oom_score_adj_min}")
    lines += [f"served by fs {path}" for path in traits.fs_mounts]
    return lines + [f"deferred mount {path}" for path in traits.deferred_mounts]

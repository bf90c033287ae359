"""What makes a container a system container: a sequence of small steps from Spec to Spec.

Pure: no step looks at the machine, changes its input, or imports anything but errors and this package.
"""

from __future__ import annotations

from sysvisor_runc.syscont.devices import convert_devices
from sysvisor_runc.syscont.hidden import convert_hidden
from sysvisor_runc.syscont.ids import convert_ids
from sysvisor_runc.syscont.init import convert_init
from sysvisor_runc.syscont.mounts import convert_mounts, sort_mounts
from sysvisor_runc.syscont.namespaces import convert_namespaces
from sysvisor_runc.syscont.paths import convert_paths
from sysvisor_runc.syscont.process import OOM_FLOOR, convert_process, getenv, may_raise, with_env
from sysvisor_runc.syscont.rootfs import convert_rootfs
from sysvisor_runc.syscont.settings import read_settings
from sysvisor_runc.syscont.traits import Traits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.spec.types import Process, Spec
    from sysvisor_runc.syscont.facts import HostFacts

    Step = Callable[[Spec, HostFacts, Traits], Spec]

MANAGER = "sysvisor-runc"


def convert(spec: Spec, facts: HostFacts) -> tuple[Spec, Traits]:
    """The spec of a system container, and what the launch must do beside it.

    `spec` has been validated and is left as it was; the result shares with it what no step changed.
    Raises SpecError where the spec asks for what a system container cannot have.
    """
    traits = Traits(read_settings(spec))
    convert_init(spec, facts, traits)
    for step in steps(spec, facts, traits):
        spec = step(spec, facts, traits)
    return spec, traits


def convert_exec(process: Process, spec: Spec, facts: HostFacts) -> tuple[Process, list[str]]:
    """A further process of a running system container, and warnings. `spec` is the container's.

    Settings in the process' own environment win over the container's. Raises SpecError.
    """
    return convert_process(process, facts, read_settings(spec, process))


def steps(spec: Spec, facts: HostFacts, traits: Traits) -> list[Step]:
    """All that is done for this container, in order. What few containers need is loaded only for them."""
    chosen: list[Step] = [
        convert_namespaces,
        convert_ids,
        convert_rootfs,
        convert_mounts,
        convert_devices,
        _introduce,
    ]
    linux = spec.get("linux", {})
    if linux.get("sysctl"):
        from sysvisor_runc.syscont.sysctl import convert_sysctl

        chosen.append(convert_sysctl)
    if traits.settings.cpuset_from_quota:
        from sysvisor_runc.syscont.cpus import convert_cpus

        chosen.append(convert_cpus)
    if traits.init_kind == "systemd":
        from sysvisor_runc.syscont.systemd import convert_systemd

        chosen.append(convert_systemd)
    if spec["root"].get("readonly"):
        from sysvisor_runc.syscont.readonly import convert_readonly

        chosen.append(convert_readonly)
    if traits.init_kind != "program" or facts.credentials:
        from sysvisor_runc.syscont.interface import convert_interface

        chosen.append(convert_interface)
    chosen.append(convert_hidden)
    if facts.fs_mountpoint:
        from sysvisor_runc.syscont.fs import convert_fs

        chosen.append(convert_fs)
    if facts.sources:
        from sysvisor_runc.syscont.binds import convert_binds

        chosen.append(convert_binds)
    # From here on no step adds a mount.
    chosen += [sort_mounts, convert_paths, _convert_init_process]
    if "seccomp" in linux:
        chosen.append(_convert_seccomp)
    return chosen


def _introduce(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Tell the program that it is in a container.

    A manager above us (Podman) may have done so; an empty value would deny it.
    """
    if getenv(spec["process"], "container"):
        return spec
    return {**spec, "process": with_env(spec["process"], {"container": MANAGER})}


def _convert_init_process(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    process, warnings = convert_process(spec["process"], facts, traits.settings)
    traits.warnings += warnings
    traits.clear_apparmor = True
    traits.oom_score_adj_min = OOM_FLOOR if may_raise(facts) else None
    return {**spec, "process": process}


def _convert_seccomp(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    from sysvisor_runc.syscont.seccomp import allow_system_calls

    linux = spec["linux"]
    return {**spec, "linux": {**linux, "seccomp": allow_system_calls(linux["seccomp"])}}

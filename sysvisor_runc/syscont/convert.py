"""What makes a container a system container: an ordered tuple of small steps from Spec to Spec.

Pure: no step looks at the machine, changes its input, or imports anything but errors and this package.
"""

from __future__ import annotations

from sysvisor_runc.syscont.fs import convert_fs
from sysvisor_runc.syscont.hidden import convert_hidden
from sysvisor_runc.syscont.idmap import convert_binds, convert_rootfs
from sysvisor_runc.syscont.ids import convert_ids
from sysvisor_runc.syscont.interface import convert_interface
from sysvisor_runc.syscont.mounts import convert_mounts, convert_readonly_root, sort_mounts
from sysvisor_runc.syscont.namespaces import convert_namespaces
from sysvisor_runc.syscont.paths import convert_paths
from sysvisor_runc.syscont.process import CAP_SYS_RESOURCE, OOM_FLOOR, convert_process
from sysvisor_runc.syscont.sysctl import convert_sysctl
from sysvisor_runc.syscont.systemd import convert_init
from sysvisor_runc.syscont.traits import Traits, read_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.spec.types import Process, Spec
    from sysvisor_runc.syscont.facts import HostFacts

    Step = Callable[[Spec, HostFacts, Traits], Spec]


def convert(spec: Spec, facts: HostFacts) -> tuple[Spec, Traits]:
    """The spec of a system container, and what the launch must do beside it.

    `spec` has been validated and is left as it was; the result shares with it what no step changed.
    Raises SpecError where the spec asks for what a system container cannot have.
    """
    traits = Traits(read_settings(spec))
    for step in STEPS:
        spec = step(spec, facts, traits)
    return spec, traits


def convert_exec(process: Process, spec: Spec, facts: HostFacts) -> tuple[Process, list[str]]:
    """A further process of a running system container, and warnings. `spec` is the container's, as stored.

    Settings in the process' own environment win over the container's. Raises SpecError.
    """
    return convert_process(process, facts, read_settings(spec, process))


def _convert_process(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    process, warnings = convert_process(spec["process"], facts, traits.settings)
    traits.warnings += warnings
    traits.clear_apparmor = True
    traits.oom_score_adj_min = OOM_FLOOR if facts.may(CAP_SYS_RESOURCE) else None
    return {**spec, "process": process}


def _convert_seccomp(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    linux = spec.get("linux", {})
    if "seccomp" not in linux:
        return spec
    from sysvisor_runc.syscont.seccomp import allow_system_calls

    return {**spec, "linux": {**linux, "seccomp": allow_system_calls(linux["seccomp"])}}


STEPS: tuple[Step, ...] = (
    convert_namespaces,
    convert_ids,
    convert_sysctl,
    convert_rootfs,
    convert_mounts,
    convert_init,  # after the base mounts: its /run goes beside them; before what lies in /run
    convert_readonly_root,
    convert_interface,
    convert_hidden,
    convert_fs,
    convert_binds,  # after the last step that adds a bind
    sort_mounts,
    convert_paths,
    _convert_process,
    _convert_seccomp,
)

"""The container interface of the systemd project (https://systemd.io/CONTAINER_INTERFACE), kept for every init.

`container=` tells any program where it runs; an init system also gets its uuid, the host's identity, `/run/host` and
the credentials.
"""

from __future__ import annotations

from sysvisor_runc.errors import SpecError
from sysvisor_runc.syscont.facts import inside
from sysvisor_runc.syscont.process import getenv, with_env

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Mount, Process, Spec
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Traits

MANAGER = "sysvisor-runc"
RUN_HOST = "/run/host"
CREDENTIALS = "/run/host/credentials"

_MAX_CREDENTIALS = 1 << 20  # what systemd accepts in total (CREDENTIALS_TOTAL_SIZE_MAX)

# `blk` is missing: mknod(2) of a block device needs CAP_MKNOD in the initial user namespace, while 0:0 is allowed for
# a character device since Linux 5.8 (overlayfs' whiteout). systemd falls back to another node for it.
_NODES = ("reg", "dir", "fifo", "sock", "chr")


def container_uuid(container_id: str, machine_id: str) -> str:
    """A UUID that is the same at every start, and another one on every machine.

    Two hosts may each have a container "web"; their machine ids, and so their DHCP identities, must still differ.
    """
    from _blake2 import blake2s

    digest = bytearray(blake2s(container_id.encode(), key=machine_id.strip().encode()[:32], digest_size=16).digest())
    digest[6] = digest[6] & 0x0F | 0x40  # version 4, variant 1: what systemd makes of any machine id
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def convert_interface(spec: Spec, facts: HostFacts, traits: Traits) -> Spec:
    """Variables for PID 1, and `/run/host` with its files. Raises SpecError for a credential that cannot be a file."""
    process = spec["process"]
    # A manager above us (Podman) may have introduced itself; an empty value would deny that this is a container.
    manager = getenv(process, "container") or MANAGER
    variables = {"container": manager}
    is_init = traits.init_kind != "program"
    if is_init:
        variables |= _init_variables(process, facts)
    mounts = list(spec.get("mounts", ()))
    taken = {inside(mount["destination"]) for mount in mounts}
    if (is_init or facts.credentials) and RUN_HOST not in taken:
        mounts.append(_tmpfs(RUN_HOST, "tmpfs", "755"))
        traits.run_host_files = _files(manager, getenv(process, "container_uuid") or facts.container_uuid, facts)
        traits.run_host_nodes = {f"{RUN_HOST}/inaccessible/{kind}": kind for kind in _NODES}
    if facts.credentials:
        _check_credentials(facts.credentials)
        # Never swapped out; tmpfs' own `noswap` is refused in a user namespace.
        mounts.append(_tmpfs(CREDENTIALS, "ramfs", "700"))
        traits.credentials = facts.credentials
        traits.credentials_dir = CREDENTIALS
        variables["CREDENTIALS_DIRECTORY"] = CREDENTIALS
    return {**spec, "mounts": mounts, "process": with_env(process, variables)}


def _init_variables(process: Process, facts: HostFacts) -> dict[str, str]:
    variables = {}
    if facts.container_uuid and not getenv(process, "container_uuid"):
        variables["container_uuid"] = facts.container_uuid
    release = _os_release(facts.os_release)
    for key in ("ID", "BUILD_ID", "VARIANT_ID", "VERSION_ID"):
        if release.get(key):
            variables[f"container_host_{key.lower()}"] = release[key]
    if process.get("terminal") and not getenv(process, "TERM"):
        variables["TERM"] = "xterm"
    return variables


def _files(manager: str, uuid: str, facts: HostFacts) -> dict[str, str]:
    files = {"container-manager": f"{manager}\n", "container-uuid": f"{uuid}\n" if uuid else ""}
    files["os-release"] = facts.os_release
    return {f"{RUN_HOST}/{name}": text for name, text in files.items() if text}


def _tmpfs(destination: str, kind: str, mode: str) -> Mount:
    options = ["nosuid", "noexec", "nodev", f"mode={mode}"]
    if kind == "tmpfs":
        options.append("size=1m")
    return {"destination": destination, "type": kind, "source": kind, "options": options}


def _check_credentials(credentials: dict[str, bytes]) -> None:
    for name in credentials:
        if not 0 < len(name) < 256 or "/" in name or name in (".", "..") or not name.isprintable():
            raise SpecError("", f"credential {name!r}: expected a name that can be a file's")
    total = sum(map(len, credentials.values()))
    if total > _MAX_CREDENTIALS:
        raise SpecError("", f"credentials take {total} bytes, at most {_MAX_CREDENTIALS} can be passed")


def _os_release(text: str) -> dict[str, str]:
    """Keys and values of os-release(5). Quoting is the shell's, of which the ID fields need only the outer quotes."""
    result = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not key.startswith("#"):
            result[key.strip()] = value.strip().strip("\"'")
    return result

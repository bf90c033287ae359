"""The container interface of the systemd project (https://systemd.io/CONTAINER_INTERFACE), kept for every init system.

Beside `container=`, which any program gets: the container's uuid, the host's identity, `/run/host` and credentials.
Loaded only for a container that runs an init system or is given credentials.
"""

from __future__ import annotations

from sysvisor_runc.errors import SpecError
from sysvisor_runc.syscont.facts import inside
from sysvisor_runc.syscont.mounts import mount
from sysvisor_runc.syscont.process import getenv, with_env

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Process, Spec
    from sysvisor_runc.syscont.facts import HostFacts
    from sysvisor_runc.syscont.traits import Traits

_RUN_HOST = "/run/host tmpfs nosuid,noexec,nodev,mode=755,size=1m"
# Never swapped out; tmpfs' own `noswap` is refused in a user namespace.
_CREDENTIALS = "/run/host/credentials ramfs nosuid,noexec,nodev,mode=700"

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
    variables = _init_variables(process, facts) if traits.init_kind != "program" else {}
    mounts = list(spec.get("mounts", ()))
    # A manager above us that brings its own /run/host has filled it, too.
    if all(inside(entry["destination"]) != "/run/host" for entry in mounts):
        mounts.append(mount(_RUN_HOST))
        traits.run_host_files = _files(process, facts)
        traits.run_host_nodes = {f"/run/host/inaccessible/{kind}": kind for kind in _NODES}
    if facts.credentials:
        _check_credentials(facts.credentials)
        mounts.append(mount(_CREDENTIALS))
        traits.credentials = facts.credentials
        traits.credentials_dir = variables["CREDENTIALS_DIRECTORY"] = "/run/host/credentials"
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


def _files(process: Process, facts: HostFacts) -> dict[str, str]:
    manager = getenv(process, "container")
    uuid = getenv(process, "container_uuid") or facts.container_uuid
    files = {"/run/host/container-manager": f"{manager}\n"}
    if uuid:
        files["/run/host/container-uuid"] = f"{uuid}\n"
    if facts.os_release:
        files["/run/host/os-release"] = facts.os_release
    return files


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

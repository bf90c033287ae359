"""What must not be left behind by a test: mounts, cgroups, processes, containers, id ranges, stray files.

Everything is looked up by the test's own token or directory, since other things happen on the same machine.
"""

import os
import pathlib

from sysvisor_runc.state.subid import registry_path
from tests.support.runtime import Runtime, supervisors

CGROUPS = pathlib.Path("/sys/fs/cgroup")


def mounts(directory: pathlib.Path) -> list[str]:
    """Mount points of this mount namespace at or below a directory, or made from something below it."""
    found = []
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        root, target = line.split(" ")[3:5]
        if any(path == str(directory) or path.startswith(f"{directory}/") for path in (root, target)):
            found.append(target)
    return found


def cgroups(token: str) -> list[str]:
    """Cgroups of any hierarchy whose path has the token in it."""
    found: list[str] = []
    for top, names, _ in os.walk(CGROUPS):
        found.extend(os.path.join(top, name) for name in names if token in name)
    return found


def processes(token: str, directory: pathlib.Path) -> list[str]:
    """Live processes (no zombies) that belong to the test.

    In a cgroup with the token, with token or directory on their command line, or with a mount from below the directory
    in their mount namespace.
    """
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            cgroup = (entry / "cgroup").read_text()
            command = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            mounted = _mounts_of_another(entry)
        except (FileNotFoundError, ProcessLookupError, OSError):
            continue
        ours = token in cgroup or token in command or f"{directory}/" in command or f"{directory}/" in mounted
        if command and ours:
            found.append(f"{entry.name} {command}")
    return found


def _mounts_of_another(process: pathlib.Path) -> str:
    """The mount table of a process in another mount namespace than ours."""
    if os.readlink(process / "ns/mnt") == os.readlink("/proc/self/ns/mnt"):
        return ""
    return (process / "mountinfo").read_text()


def containers(runtime: Runtime) -> list[str]:
    """All in the state root but what is shared by all containers, whose names begin with an @."""
    if not runtime.root.is_dir():
        return []
    return [entry.name for entry in runtime.root.iterdir() if not entry.name.startswith("@")]


def id_ranges(runtime: Runtime) -> list[str]:
    """Subordinate ids that are recorded for a container of the state root."""
    registry = pathlib.Path(registry_path())
    if not registry.is_dir():
        return []
    links = [(link.name, _target(link)) for link in registry.iterdir()]
    return [f"{name} of {target}" for name, target in links if target.startswith(f"{runtime.root}/")]


def _target(link: pathlib.Path) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""  # another test's, freed just now


def stray_files(runtime: Runtime) -> list[str]:
    """Files with the token in their name in /run and /tmp, and half-written ones of the test's directory."""
    tops = [pathlib.Path("/run"), pathlib.Path("/tmp")]
    named = [str(path) for top in tops for path in top.iterdir() if runtime.token in path.name]
    return named + [str(path) for path in runtime.directory.glob(".*")]


def find(runtime: Runtime) -> list[str]:
    """All that is left of the runtime's containers, one line each; empty is clean.

    The supervisor of the state root is no leftover: it lingers for a moment, and `Runtime.clean` sees it end.
    """
    resident = {str(pid) for pid in supervisors(str(runtime.root))}
    found = processes(runtime.token, runtime.directory)
    return [
        *(f"container {name}" for name in containers(runtime)),
        *(f"process {line}" for line in found if line.split(" ", 1)[0] not in resident),
        *(f"cgroup {path}" for path in cgroups(runtime.token)),
        *(f"mount {path}" for path in mounts(runtime.directory)),
        *(f"ids {text}" for text in id_ranges(runtime)),
        *(f"file {path}" for path in stray_files(runtime)),
    ]

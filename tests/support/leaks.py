"""What must not be left behind by a test: mounts, cgroups, processes, containers.

Everything is looked up by the test's own token or directory, since other things happen on the same machine.
"""

import os
import pathlib

from tests.support.runtime import Runtime

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
    """Live processes (no zombies) in a cgroup with the token, or with token or directory on their command line."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            cgroup = (entry / "cgroup").read_text()
            command = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if command and (token in cgroup or token in command or f"{directory}/" in command):
            found.append(f"{entry.name} {command}")
    return found


def containers(runtime: Runtime) -> list[str]:
    """Directories of containers in the state root."""
    if not runtime.root.is_dir():
        return []
    return [entry.name for entry in runtime.root.iterdir() if runtime.token in entry.name]


def find(runtime: Runtime) -> list[str]:
    """All that is left of the runtime's containers, one line each; empty is clean."""
    return [
        *(f"container {name}" for name in containers(runtime)),
        *(f"process {line}" for line in processes(runtime.token, runtime.directory)),
        *(f"cgroup {path}" for path in cgroups(runtime.token)),
        *(f"mount {path}" for path in mounts(runtime.directory)),
    ]

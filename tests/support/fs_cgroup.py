"""Cgroup directories as a test writes them: the files of a kernel, of either version, without one."""

import pathlib
import time

from sysvisor_fs.node import Caller, Container

NOBODY = Caller(0, 0, 0)


def make(root: pathlib.Path, path: str, **contents: str | int) -> pathlib.Path:
    """A cgroup at `path` below a hierarchy's root, made with those above it; `a__b` stands for file `a.b`."""
    directory = root
    for part in path.split("/"):
        directory = directory / part
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.procs").touch()
    write(directory, **contents)
    return directory


def write(directory: pathlib.Path, **contents: str | int) -> None:
    """Files of a cgroup, each ended by a line's end."""
    for name, content in contents.items():
        (directory / name.replace("__", ".")).write_text(f"{content}\n")


def table(**numbers: int) -> str:
    """Lines of a name and a number."""
    return "\n".join(f"{name} {number}" for name, number in numbers.items())


def container(name: str = "one", age: float = 100.0, **cgroups: pathlib.Path) -> Container:
    """A registered container of that age in seconds, in these cgroups."""
    made = Container(name)
    made.registered = True
    made.cgroups = {controller: str(path) for controller, path in cgroups.items()}
    made.start_boottime_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - int(age * 1e9)
    return made

"""What a container looks like from inside, and its init from outside: many observations from one run."""

import contextlib
import os
import pathlib
import socket
from collections.abc import Iterator
from typing import Any

from tests.support.bundle import Bundle
from tests.support.runtime import Runtime

# Host ids for user namespaces of tests that need no range of their own.
FIRST_ID = 1_700_000_000
ID_COUNT = 65536


def observe(runtime: Runtime, bundle: Bundle, *flags: str, **commands: str) -> dict[str, str]:
    """Run one container that executes each shell command; what each printed (stderr too), stripped, by its name."""
    lines = [f"echo @@{name}; {{ {command}\n}} 2>&1; echo @@" for name, command in commands.items()]
    bundle.sh("\n".join(lines))
    result = runtime("run", *flags, "--bundle", bundle.path, runtime.id())
    found: dict[str, str] = {}
    for name in commands:
        assert f"@@{name}\n" in result.stdout, repr(result)
        found[name] = result.stdout.split(f"@@{name}\n", 1)[1].split("@@\n", 1)[0].strip()
    return found


def start(runtime: Runtime, bundle: Bundle, *args: str) -> tuple[str, int]:
    """Run a container in the background, by default one that sleeps; its id and the host's pid of its init."""
    bundle.run(*(args or ("/bin/sleep", "1000")))
    name = runtime.id()
    runtime("run", "--detach", "--bundle", bundle.path, name)
    return name, int(runtime.state(name)["pid"])


def user_namespace(bundle: Bundle, first: int = FIRST_ID, size: int = ID_COUNT) -> None:
    """Give the container a user namespace of its own, mapped to `first` and up."""
    bundle.linux["namespaces"].append({"type": "user"})
    bundle.linux["uidMappings"] = [{"containerID": 0, "hostID": first, "size": size}]
    bundle.linux["gidMappings"] = [{"containerID": 0, "hostID": first, "size": size}]


def mounted(pid: int) -> dict[str, dict[str, Any]]:
    """The mounts of a process by mount point: options, propagation fields, file system type, its options (proc(5))."""
    found = {}
    for line in pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        fstype, source, options = right.split(" ", 2)
        found[fields[4]] = {
            "root": fields[3],
            "options": set(fields[5].split(",")),
            "propagation": fields[6:],
            "type": fstype,
            "source": source,
            "data": set(options.split(",")),
        }
    return found


def status(pid: int) -> dict[str, str]:
    """`/proc/PID/status` as a table."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@contextlib.contextmanager
def listening(path: pathlib.Path) -> Iterator[socket.socket]:
    """A UNIX stream socket that listens at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen(4)
        server.settimeout(20)
        yield server


def namespace(pid: int | str, kind: str) -> str:
    """The identity of a namespace of a process, such as `net:[4026531840]`."""
    return os.readlink(f"/proc/{pid}/ns/{kind}")

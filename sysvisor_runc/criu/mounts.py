"""Which mounts of a container lead out of it: criu cannot save those, it only notes a name to find them by again.

A mount is the container's own where its file system was made in there, or lies within its root file system; every other
one was handed in from the host: volumes, device nodes, cgroups without a cgroup namespace, and what masks a path.
"""

from __future__ import annotations

import os

from sysvisor_runc.kernel import file

MASK = "/dev/null"


class MountLine:
    """One line of mountinfo (proc_pid_mountinfo(5)): id, device, root of the mount in its file system, place, type."""

    __slots__ = ("device", "fstype", "number", "place", "root")

    def __init__(self, line: str) -> None:
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        self.number = int(fields[0])
        self.device = fields[2]
        self.root = _unescape(fields[3])
        self.place = _unescape(fields[4])
        self.fstype = right.split(" ", 1)[0]


def external(mountinfo: str, masked: list[str], handed_in: frozenset[str], *, own_cgroups: bool) -> dict[str, str]:
    """Place in the container → name for criu, of each mount that leads out.

    `masked` are the spec's paths, whose covers all go by one name; `handed_in` are places whose whole file system the
    host has made. With `own_cgroups`, a cgroup namespace, cgroup mounts are the container's own though their root shows
    as the path on the host.
    """
    lines = [MountLine(line) for line in mountinfo.splitlines() if line]
    top = next((line for line in lines if line.place == "/"), None)
    own = {line.device for line in lines if line.root == "/" and line.place != "/"}
    found = {}
    for line in lines:
        if line.place == "/" or (line.device in own and line.place not in handed_in):
            continue
        if own_cgroups and line.fstype in ("cgroup", "cgroup2"):
            continue
        if top is not None and line.device == top.device and within(line.root, top.root):
            continue
        found[line.place] = MASK if line.place in masked and line.root.endswith("/null") else line.place
    return found


def mount_id(pid: int | str, fd: int) -> int:
    """Which mount a descriptor of a process leads to; 0 where that is not told."""
    for line in read(f"/proc/{pid}/fdinfo/{fd}").splitlines():
        if line.startswith("mnt_id:"):
            return int(line.split()[1])
    return 0


def read(path: str) -> str:
    """A file of procfs, as text. Raises OSError."""
    return os.fsdecode(file.read(path))


def within(path: str, top: str) -> bool:
    """Whether a path is `top` or below it."""
    return top == "/" or path == top or path.startswith(top.rstrip("/") + "/")


def _unescape(field: str) -> str:
    for octal, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(octal, char)
    return field

"""Where a container comes from, as the kernel tells: its init's start, and the cgroups that hold its limits."""

from __future__ import annotations

import os

# A system container's processes sit in a leaf below the cgroup with the limits, or in one that its own systemd made.
_LEAVES = ("/init.scope", "/syscont")


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot (field 22 of proc_pid_stat(5)).

    Raises:
        ProcessLookupError: there is no such process, or it is a zombie.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read(1024).rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(3, os.strerror(3))
    if fields[0] in (b"Z", b"X"):
        raise ProcessLookupError(3, os.strerror(3))
    return int(fields[19])


def open_init(pid: int, start: int = 0) -> tuple[int, int]:
    """A pidfd of process `pid` and its start; with `start` it must be the one that started then.

    Raises:
        ProcessLookupError: it has ended, or another has its number now.
    """
    if pid <= 0:
        raise ProcessLookupError(3, os.strerror(3))
    pidfd = os.pidfd_open(pid)
    try:
        found = start_ticks(pid)  # after the open: whose number it is now, had it a moment ago
        if start and found != start:
            raise ProcessLookupError(3, os.strerror(3))
    except OSError:
        os.close(pidfd)
        raise
    return pidfd, found


def cgroups_of(pid: int) -> dict[str, str]:
    """Absolute path of the cgroup that holds a container's limits, by v1 controller and "unified"."""
    roots = _hierarchies()
    found: dict[str, str] = {}
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            number, controllers, path = line.rstrip("\n").split(":", 2)
            names = ["unified"] if number == "0" else controllers.split(",")
            for leaf in _LEAVES:
                path = path.removesuffix(leaf)
            for name in names:
                if (place := roots.get(name)) is not None and (below := _below(path, place[0])) is not None:
                    found[name] = place[1] + below
    return found


def _below(path: str, root: str) -> str | None:
    """`path` seen from the cgroup that a hierarchy is mounted from."""
    if root == "/":
        return path.rstrip("/")
    return path.removeprefix(root) if path == root or path.startswith(f"{root}/") else None


def _hierarchies() -> dict[str, tuple[str, str]]:
    """Controller, or "unified" → (root of the mount in its hierarchy, mount point)."""
    found: dict[str, tuple[str, str]] = {}
    with open("/proc/thread-self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.rstrip("\n").partition(" - ")
            fields, kind = before.split(" "), after.split(" ")
            if kind[0] == "cgroup2":
                found.setdefault("unified", (fields[3], fields[4]))
            elif kind[0] == "cgroup":
                for option in kind[2].split(","):
                    found.setdefault(option, (fields[3], fields[4]))
    return found

"""Which cgroup of the container a joining process is put into, `exec --cgroup` included.

Loaded by `exec` alone.
"""

from __future__ import annotations

from sysvisor_runc.cgroup.file import read_if_there
from sysvisor_runc.cgroup.layout import UNIFIED, detect
from sysvisor_runc.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.manager import Manager

# Controllers that a cgroup may pass down and still hold processes (cgroups(7), "threaded").
_THREADED = frozenset(("cpu", "cpuset", "perf_event", "pids"))


def sub_cgroup(paths: dict[str, str], wanted: list[str]) -> dict[str, str]:
    """`paths` with every `--cgroup` value applied: one `PATH` for all, or `CONTROLLER[,CONTROLLER…]:PATH` each.

    Raises:
        UsageError: an unknown or repeated controller, a path without one beside others, a path that climbs.
    """
    result = dict(paths)
    seen = set()
    for item in wanted:
        names, colon, path = item.partition(":")
        if not colon:
            if len(wanted) != 1:
                raise UsageError(f"invalid --cgroup argument: {item} (missing <controller>: prefix)")
            return {key: _join(base, item) for key, base in paths.items()}
        for name in names.split(","):
            if name == "":
                raise UsageError(f"invalid --cgroup argument: {item} (empty <controller> prefix)")
            if name not in paths:
                raise UsageError(
                    f"unknown controller {name} in --cgroup {item}", hint=f"known here: {', '.join(sorted(paths))}"
                )
            if name in seen:
                raise UsageError(f"invalid --cgroup argument(s): controller {name} specified multiple times")
            seen.add(name)
            result[name] = _join(paths[name], path)
    return result


def init_cgroup(cgroup: str, unified_mountpoint: str) -> str | None:
    """Absolute path of the cgroup2 cgroup in the contents of a process's `/proc/PID/cgroup`.

    On v2 a container that enabled a domain controller can no longer be joined at its top (EBUSY); an `exec` then goes
    where init is.
    """
    for line in cgroup.splitlines():
        if line.startswith("0::/"):
            return unified_mountpoint + line[3:].rstrip("/")
    return None


def _join(base: str, sub: str) -> str:
    parts = [part for part in sub.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UsageError(f"bad sub cgroup path: {sub}")
    return "/".join([base, *parts])


def join_paths(manager: Manager, init_pid: int, wanted: list[str]) -> dict[str, str]:
    """Where a process that joins the container goes: its leaf or its cgroup, `--cgroup`, or beside init.

    The last on v2 only, where a cgroup that passes domain controllers down, or is gone, cannot be joined; not if
    `wanted` names one.

    Raises:
        UsageError: see `sub_cgroup`.
    """
    paths = manager.exec_paths()
    if wanted:
        return sub_cgroup(paths, wanted)
    if manager.v2:
        layout = detect()
        enabled = read_if_there(paths[UNIFIED] + "/cgroup.subtree_control")
        if enabled is None or not _THREADED.issuperset(enabled.split()):
            text = read_if_there(f"/proc/{init_pid}/cgroup") or ""
            beside = None if layout.unified is None else init_cgroup(text, layout.unified.mountpoint)
            # Not outside the container's own cgroup, wherever init may have been moved, as long as that is there.
            inside = beside is not None and f"{beside}/".startswith(manager.paths[UNIFIED] + "/")
            if beside is not None and (inside or enabled is None):
                paths[UNIFIED] = beside
    return paths

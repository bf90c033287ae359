"""`exec --cgroup`: which sub-cgroup of the container a joining process is put into.

Pure; loaded by `exec` alone, and only where the flag is given.
"""

from __future__ import annotations

from sysvisor_runc.errors import UsageError


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

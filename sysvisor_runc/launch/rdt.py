"""Intel RDT: put a container into a resctrl group (runtime-spec config-linux.md "IntelRdt"; kernel: resctrl.rst).

Loaded only for configurations with `linux.intelRdt`. `root` is where resctrl is mounted, found in mountinfo where it is
not given.
"""

from __future__ import annotations

import os

from sysvisor_runc.errors import LaunchError, SpecError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.launch.undo import UndoStack
    from sysvisor_runc.spec.types import IntelRdt

_FIELD = "linux.intelRdt"
# Lines of a schemata file whose numbers are bit masks, in hexadecimal; the others are decimal.
_MASKS = ("L3", "L2", "L3CODE", "L3DATA", "L2CODE", "L2DATA")


def apply_rdt(
    intel_rdt: IntelRdt, container_id: str, undo: UndoStack, taking: Callable[[str], object], *, root: str = ""
) -> str:
    """Make and configure the container's group; what is made is told to `taking` before, and is on `undo`.

    Returns the directories to remove with the container, one per line, innermost first: those that were made here.

    Raises:
        LaunchError: no resctrl is mounted, the group is missing or set up otherwise, the kernel refuses a schema.
    """
    root = root or find_root()
    group = group_of(intel_rdt, container_id, root)
    made: list[str] = []
    undo.push("resctrl group", lambda: remove_rdt("\n".join(made)))
    schemata = _schemata(intel_rdt)
    if os.path.isdir(group):
        _compare(intel_rdt, group)
        schemata = intel_rdt.get("schemata") or []
    elif intel_rdt.get("closID") and not schemata:
        raise LaunchError(
            f"{_FIELD}.closID: no resctrl group {group!r}",
            hint="make it first, or say in schemata what it shall be limited to",
        )
    else:
        taking(group)
        _make(group, root, made)
    if schemata:
        _write(f"{group}/schemata", "".join(f"{line}\n" for line in schemata), root)
    monitor = monitor_of(intel_rdt, container_id, group)
    if monitor:
        taking(monitor)
        _make(monitor, root, made)
    return "\n".join(made)


def join_rdt(intel_rdt: IntelRdt, container_id: str, pid: int, *, root: str = "") -> None:
    """Move process `pid` into the container's group, and into its monitoring group.

    Raises:
        LaunchError: the group is gone, or the kernel refuses.
    """
    root = root or find_root()
    group = group_of(intel_rdt, container_id, root)
    for path in (group, monitor_of(intel_rdt, container_id, group)):
        if path:
            _write(f"{path}/tasks", str(pid), root)


def remove_rdt(groups: str) -> None:
    """Remove the groups that `apply_rdt` made. One that others have joined since (they share its closID) stays.

    Raises:
        LaunchError: a group cannot be removed.
    """
    for path in groups.split("\n"):
        if not path or (os.path.basename(os.path.dirname(path)) != "mon_groups" and _shared(path)):
            continue
        try:
            os.rmdir(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise LaunchError(f"remove resctrl group {path!r}: {reason(error)}") from error


def find_root() -> str:
    """Where resctrl is mounted.

    Raises:
        LaunchError: it is not, or the machine has none.
    """
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            left, _, right = line.partition(b" - ")
            if right.startswith(b"resctrl "):
                return os.fsdecode(left.split(b" ")[4])
    raise LaunchError(
        "intelRdt is specified in config, but Intel RDT is not supported or enabled",
        hint="mount -t resctrl resctrl /sys/fs/resctrl, on a processor that has it",
    )


def group_of(intel_rdt: IntelRdt, container_id: str, root: str) -> str:
    """The group's directory; a closID of `/` is the root group itself."""
    name = intel_rdt.get("closID") or container_id
    return root if name == "/" else f"{root}/{name}"


def monitor_of(intel_rdt: IntelRdt, container_id: str, group: str) -> str:
    return f"{group}/mon_groups/{container_id}" if intel_rdt.get("enableMonitoring") else ""


def _schemata(intel_rdt: IntelRdt) -> list[str]:
    """The lines to write, `schemata` last. An `MB:` line of l3CacheSchema gives way to memBwSchema."""
    memory = intel_rdt.get("memBwSchema") or ""
    lines = [line for line in (intel_rdt.get("l3CacheSchema") or "").split("\n") if line.strip()]
    if memory:
        lines = [line for line in lines if not line.lstrip().startswith("MB:")] + [memory]
    return lines + (intel_rdt.get("schemata") or [])


def _compare(intel_rdt: IntelRdt, group: str) -> None:
    """A group that is there must be set up as l3CacheSchema and memBwSchema say; `schemata` will be written."""
    wanted = _parse(_schemata({**intel_rdt, "schemata": []}))
    if not wanted:
        return
    try:
        with open(f"{group}/schemata", encoding="ascii", errors="replace") as file:
            found = _parse(file.read().split("\n"))
    except OSError as error:
        raise LaunchError(f"read {group}/schemata: {reason(error)}") from error
    for key, value in wanted.items():
        if found.get(key) != value:
            resource, domain = key
            problem = f"{_FIELD}: resctrl group {group!r} exists, but its {resource} of domain {domain} differs"
            raise LaunchError(problem, hint="use another closID, or leave the schema out to take the group as it is")


def _parse(lines: list[str]) -> dict[tuple[str, str], int]:
    """`L3:0=ffff0;1=3ff` as {("L3", "0"): 0xffff0, …}; the kernel prints it padded and in an order of its own."""
    table = {}
    for line in lines:
        resource, colon, domains = line.strip().partition(":")
        for part in domains.split(";") if colon else ():
            domain, _, value = part.partition("=")
            try:
                number = int(value, 16 if resource in _MASKS else 10)
            except ValueError:
                raise SpecError(_FIELD, f"cannot read the schema {line!r}", hint="such as L3:0=ff;1=3f") from None
            table[resource, domain.strip().lstrip("0") or "0"] = number
    return table


def _make(path: str, root: str, made: list[str]) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return
    except OSError as error:
        raise LaunchError(f"make resctrl group {path!r}: {reason(error)}{_status(root)}", hint=_hint(error)) from error
    made.insert(0, path)


def _write(path: str, text: str, root: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        shown = text.rstrip("\n")
        raise LaunchError(f"write {shown!r} to {path!r}: {reason(error)}{_status(root)}") from error


def _hint(error: OSError) -> str | None:
    return "no class of service is left: remove an unused group" if error.errno == 28 else None  # ENOSPC


def _status(root: str) -> str:
    """What the kernel says about the last failure, in brackets."""
    try:
        with open(f"{root}/info/last_cmd_status", encoding="ascii", errors="replace") as file:
            said = file.read().strip()
    except OSError:
        return ""
    return f" ({said})" if said and said != "ok" else ""


def _shared(group: str) -> bool:
    """Whether tasks are left in a group: not ours any more, so those of others with the same closID."""
    try:
        with open(f"{group}/tasks", "rb") as file:
            return bool(file.read(1))
    except OSError:
        return False

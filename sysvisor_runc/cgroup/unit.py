"""The systemd unit of a container: its name, its slice, where its cgroups lie, and how it is created.

Pure. A property is what D-Bus wants it to be: a name and a value with its type, `("TasksMax", ("t", 5))`.
"""

from __future__ import annotations

from sysvisor_runc.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.layout import Layout

    Property = tuple[str, tuple[str, object]]

_WHERE = "linux.cgroupsPath"
_SLICE = ".slice"
_PREFIX = "org.systemd.property."


class Unit:
    """A transient unit.

    Attributes:
        name: `PREFIX-NAME.scope`, or a slice as it was asked for.
        slice: the slice that it is in, `-.slice` for the top one.
        user: whether the caller's own service manager keeps it, not the machine's.
    """

    __slots__ = ("name", "slice", "user")

    def __init__(self, name: str, slice_: str, *, user: bool = False) -> None:
        self.name = name
        self.slice = slice_
        self.user = user

    @property
    def is_slice(self) -> bool:
        """A slice takes no processes from systemd, nor is it delegated: both are a scope's alone."""
        return self.name.endswith(_SLICE)


def container_unit(cgroups_path: str | None, container_id: str, *, user: bool = False) -> Unit:
    """The unit for `linux.cgroupsPath`, which reads `slice:prefix:name` here; without one `runc-ID.scope`.

    An empty slice is system.slice, or user.slice with a user's own manager; a name that ends in `.slice` is the unit's
    whole name. All as runc has it.

    Raises:
        SpecError: the path has another form, or no unit can be called so.
    """
    default = "user.slice" if user else "system.slice"
    if not cgroups_path:
        return Unit(f"runc-{container_id}.scope", default, user=user)
    parts = cgroups_path.split(":")
    if len(parts) != 3:
        raise SpecError(
            _WHERE,
            'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, '
            f"got {cgroups_path!r} instead",
            hint="leave out --systemd-cgroup for a path of cgroupfs",
        )
    slice_, prefix, name = parts
    if "/" in cgroups_path or "\0" in cgroups_path or "\n" in cgroups_path:
        raise SpecError(_WHERE, f"{cgroups_path!r}: no unit can be called so")
    if not name:
        raise SpecError(_WHERE, f"{cgroups_path!r} names no unit of the container's own")
    slice_ = {"": default, "-": "-" + _SLICE}.get(slice_, slice_)
    if not name.endswith(_SLICE):
        name = f"{prefix}-{name}.scope"
    else:
        expand_slice(name)
    expand_slice(slice_)
    return Unit(name, slice_, user=user)


def expand_slice(name: str) -> str:
    """Where a slice lies: `a-b.slice` → `/a.slice/a-b.slice`, and `/` for `-.slice` (systemd.slice(5)).

    Raises:
        SpecError: this is no name of a slice.
    """
    stem = name.removesuffix(_SLICE)
    if stem == "-":
        return "/"
    parts = stem.split("-")
    if stem == name or "/" in stem or "" in parts:
        raise SpecError(_WHERE, f"invalid slice name: {name}", hint="such as user-1000.slice, which is in user.slice")
    return "".join(f"/{'-'.join(parts[: index + 1])}{_SLICE}" for index in range(len(parts)))


def unit_paths(layout: Layout, unit: Unit, top: str) -> dict[str, str]:
    """Controller → absolute path of the unit's cgroup; `top` is the service manager's own, as it names it.

    systemd itself makes only some of them on v1; the others lie at the same place in their hierarchies.
    """
    if unit.is_slice:
        inner = expand_slice(unit.name)
    else:
        inner = f"{expand_slice(unit.slice).rstrip('/')}/{unit.name}"
    top = top.strip("/")
    middle = f"/{top}" if top else ""
    return {key: f"{hierarchy.mountpoint}{middle}{inner}" for key, hierarchy in layout.by_controller().items()}


def creation(unit: Unit, container_id: str, pid: int, *, v2: bool) -> list[Property]:
    """What makes the unit: who is in it, and that systemd leaves what is below to us (Delegate=).

    Accounting is always on, as joining a controller later would not count what was used before.
    """
    found: list[Property] = [("Description", ("s", f"libcontainer container {container_id}"))]
    if unit.is_slice:
        found.append(("Wants", ("as", [_parent(unit.name)])))
    else:
        found += [("Slice", ("s", unit.slice)), ("Delegate", ("b", True)), ("PIDs", ("au", [pid]))]
    accounting = ("Memory", "CPU", "IO" if v2 else "BlockIO", "Tasks")
    found += [(f"{what}Accounting", ("b", True)) for what in accounting]
    found.append(("DefaultDependencies", ("b", False)))
    return found


def _parent(slice_: str) -> str:
    """`a-b.slice` is in `a.slice` by its name alone."""
    return (slice_.removesuffix(_SLICE).rpartition("-")[0] or "-") + _SLICE


def annotated(annotations: dict[str, str]) -> list[Property]:
    """The properties given as `org.systemd.property.NAME` annotations, values in GVariant's text format.

    What systemd documents in seconds is a number of microseconds on D-Bus: `TimeoutStopSec` becomes `TimeoutStopUSec`.

    Raises:
        SpecError: an impossible name, or a value that cannot be read.
    """
    found: list[Property] = []
    for key, text in annotations.items():
        if not key.startswith(_PREFIX):
            continue
        from sysvisor_runc.cgroup.gvariant import parse, seconds

        where, name = f'annotations["{key}"]', key[len(_PREFIX) :]
        if len(name) < 3 or not (name.isascii() and name.isalpha()):
            raise SpecError(where, "the name of a property has three letters at least, and nothing but letters")
        try:
            value = parse(text)
            if name.endswith("Sec") and name[-4:-3].islower():
                name, value = name[:-3] + "USec", ("t", seconds(value))
        except ValueError as error:
            raise SpecError(where, f"{text!r}: {error}") from error
        found.append((name, value))
    return found

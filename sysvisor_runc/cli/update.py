"""`sysvisor-runc update`: change the resource limits of a container, all of them or none."""

from __future__ import annotations

import os

from sysvisor_runc import log
from sysvisor_runc.cli.publish import publish
from sysvisor_runc.errors import CgroupError, StateError, SysvisorError, UsageError, reason
from sysvisor_runc.launch.steps import reached
from sysvisor_runc.launch.undo import UndoStack
from sysvisor_runc.state.lifecycle import require
from sysvisor_runc.state.limits import complete, merged, touched
from sysvisor_runc.state.observe import observe
from sysvisor_runc.state.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.cgroup.devices import Devices
    from sysvisor_runc.cgroup.manager import Manager
    from sysvisor_runc.cgroup.settings import Setting, UsageCheck
    from sysvisor_runc.cli.parse import Options
    from sysvisor_runc.spec.types import LinuxResources
    from sysvisor_runc.state.record import Record

    Steps = list[Setting | UsageCheck | Devices]

RESCTRL = "/sys/fs/resctrl"

# Flag → where it goes in linux.resources.
_TEXTS = {"cpuset-cpus": ("cpu", "cpus"), "cpuset-mems": ("cpu", "mems")}
_INTEGERS = {
    "blkio-weight": ("blockIO", "weight"),
    "cpu-period": ("cpu", "period"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"),
    "cpu-share": ("cpu", "shares"),
    "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "cpu-idle": ("cpu", "idle"),
    "pids-limit": ("pids", "limit"),
}
_SIZES = {
    "memory": ("memory", "limit"),
    "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"),
    "kernel-memory": ("memory", "kernel"),
    "kernel-memory-tcp": ("memory", "kernelTCP"),
}


def run(options: Options) -> int:
    warnings: list[str] = []
    change = _requested(options, warnings)
    for warning in warnings:
        log.warning(warning)
    schemata = {"L3": options.text("l3-cache-schema"), "MB": options.text("mem-bw-schema")}
    with Store(options.globals.root).open(options.args[0]) as entry, entry.lock():
        record = entry.load()
        require("update", observe(entry, record), entry.id)
        _check_schemata(record, schemata)
        reached("update-apply")
        with UndoStack() as undo:
            _apply(record, change, undo)
            _write_schemata(record, schemata)
            reached("update-save")
            entry.save(record)
            undo.keep()
    publish(options, "update", {"resources": change})
    return 0


def _requested(options: Options, warnings: list[str]) -> LinuxResources:
    """What to change: the content of `--resources` if given, and then nothing else, else the flags."""
    from sysvisor_runc.spec.load import load_resources
    from sysvisor_runc.spec.validate import validate_resources

    file = options.text("resources")
    if file is not None:
        return complete(load_resources(file, warnings))
    values: dict[str, dict[str, object]] = {}
    for table, read in ((_TEXTS, str), (_INTEGERS, _integer), (_SIZES, _size)):
        for flag, (section, field) in table.items():
            text = options.text(flag)
            if text is not None:
                values.setdefault(section, {})[field] = _value(flag, text, read)
    return complete(validate_resources(values, warnings))


def _value(flag: str, text: str, read: Callable[[str], object]) -> object:
    try:
        return read(text)
    except ValueError:
        raise UsageError(f"invalid value for {flag}: {text!r}")


def _integer(text: str) -> int:
    if len(text) > 20:
        raise ValueError(text)
    return int(text)


def _size(text: str) -> int:
    """A number of bytes, with a binary suffix if need be: `512k`, `50M`, `1.5GiB`; -1 is no limit."""
    if text == "-1":
        return -1
    digits = text.rstrip("kKmMgGtTpPiIbB ")
    suffix = text[len(digits) :].strip().lower().removesuffix("b").removesuffix("i")
    if len(digits) > 20 or suffix not in ("", *"kmgtp") or digits.strip("0123456789."):
        raise ValueError(text)
    return int(float(digits) * 1024 ** " kmgtp".index(suffix or " "))


def _apply(record: Record, change: LinuxResources, undo: UndoStack) -> None:
    """Write the changed limits and put them into the record; `undo` gets what sets them back.

    Raises:
        CgroupError, SpecError: a limit was refused.
    """
    from sysvisor_runc.cgroup.resources import convert

    manager = _manager(record)
    linux = record["spec"].setdefault("linux", {})
    old = linux.get("resources", {})
    new = merged(old, change)
    written = touched(new, change)
    by_systemd = record["cgroup"]["driver"] == "systemd"
    if by_systemd:
        from sysvisor_runc.cgroup.unit_resources import rounded

        written = rounded(written)
    steps = convert(written, "v2" if manager.v2 else "v1", devices=False)
    before = _as_found(manager, steps)
    undo.push("limits", lambda: _set_back(manager, before))
    if by_systemd:
        from sysvisor_runc.cgroup.settings import UsageCheck
        from sysvisor_runc.cli.systemd import connect
        from sysvisor_runc.launch.unit import update_unit

        # systemd would write what the check is there to refuse.
        manager.apply([step for step in steps if isinstance(step, UsageCheck)])
        update_unit(record, manager, written, touched(old, change), connect, undo)
    manager.apply(steps)
    linux["resources"] = new


def _manager(record: Record) -> Manager:
    from sysvisor_runc.cgroup.manager import Manager

    return Manager(record["cgroup"]["paths"], delegated=bool(record["cgroup"]["leaf"]))


def _set_back(manager: Manager, before: Steps) -> None:
    """Write old limits again as far as possible: the error that led here is the one to tell."""
    try:
        manager.apply(before)
    except CgroupError as error:
        log.warning(f"limits may be inconsistent: cannot set them back: {error}")


def _as_found(manager: Manager, steps: Steps) -> Steps:
    """The values that are in the files which `steps` write, as steps that write them back."""
    from sysvisor_runc.cgroup.file import read_if_there
    from sysvisor_runc.cgroup.settings import Setting

    found: Steps = []
    for step in reversed(steps):
        path = manager.paths.get("unified" if manager.v2 else step.controller)
        if not isinstance(step, Setting) or path is None:
            continue
        text = read_if_there(f"{path}/{step.file}")
        value = None if text is None else old_value(text, step.value, v2=manager.v2)
        if value is not None:
            found.append(Setting(step.controller, step.file, value, optional=True, again=True))
    return found


def old_value(text: str, new: str, *, v2: bool) -> str | None:
    """What to write so that a control file reads `text` again after `new` was written to it; None if that is unknown.

    Files about block devices have a line for each, and a value that is written names its device first.
    """
    device, _, rest = new.partition(" ")
    lines = text.splitlines()
    if ":" in device:
        for line in lines:
            if line.startswith(device + " "):
                return line
        unlimited = " ".join(pair.partition("=")[0] + "=max" for pair in rest.split())
        return f"{device} {unlimited if '=' in rest else 'default' if v2 else '0'}"
    if not lines:
        return "\n"  # an empty cpuset: a write of nothing would not reach the kernel
    return lines[0] if len(lines) == 1 else None


def _check_schemata(record: Record, schemata: dict[str, str | None]) -> None:
    """Refuse an Intel RDT change that cannot be made, before anything else is changed."""
    names = {"L3": "Intel RDT/CAT: l3 cache schema", "MB": "Intel RDT/MBA: memory bandwidth schema"}
    for resource, schema in schemata.items():
        if schema is None:
            continue
        if not os.path.isdir(f"{RESCTRL}/info/{resource}"):
            raise SysvisorError(f"{names[resource]} is not enabled", hint=f"mount -t resctrl resctrl {RESCTRL}")
        if not record["intelRdt"]:
            raise StateError("updating a non-existent Intel RDT configuration is not supported")


def _write_schemata(record: Record, schemata: dict[str, str | None]) -> None:
    fields = {"L3": "l3CacheSchema", "MB": "memBwSchema"}
    for resource, schema in schemata.items():
        if schema is None:
            continue
        path = f"{record['intelRdt']}/schemata"
        try:
            with open(path, "w", encoding="ascii") as file:
                file.write(schema + "\n")
        except OSError as error:
            raise CgroupError(f"write {schema!r} to {path!r}: {reason(error)}")
        record["spec"]["linux"].setdefault("intelRdt", {})[fields[resource]] = schema  # type: ignore[literal-required]

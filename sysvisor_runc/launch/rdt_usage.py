"""What resctrl tells of a container with `linux.intelRdt`, as runc's `events` prints it. Loaded for those only."""

from __future__ import annotations

import os

from sysvisor_runc.errors import LaunchError
from sysvisor_runc.launch.rdt import find_root, group_of, monitor_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import IntelRdt


def rdt_usage(intel_rdt: IntelRdt, container_id: str, *, root: str = "") -> dict[str, object]:
    """Schemas of the root group and of the container's, what the processor offers, and what it has measured.

    Empty where resctrl is not mounted (any more). Without a monitoring group of its own, what is measured is that of
    its class, which others may share, as runc has it.
    """
    try:
        root = root or find_root()
    except LaunchError:
        return {}
    group = group_of(intel_rdt, container_id, root)
    own, above = _lines(f"{group}/schemata"), _lines(f"{root}/schemata")
    found: dict[str, object] = {}
    if os.path.isdir(f"{root}/info/L3"):
        found["l3_cache_info"] = _info(f"{root}/info/L3", ("cbm_mask",), ("min_cbm_bits", "num_closids"))
        found["l3_cache_schema_root"], found["l3_cache_schema"] = _last(above, "L3"), _last(own, "L3")
    if os.path.isdir(f"{root}/info/MB"):
        numbers = ("bandwidth_gran", "delay_linear", "min_bandwidth", "num_closids")
        found["mem_bw_info"] = _info(f"{root}/info/MB", (), numbers)
        found["mem_bw_schema_root"], found["mem_bw_schema"] = _last(above, "MB"), _last(own, "MB")
    found["schemata"] = own
    found = {key: value for key, value in found.items() if value or key.endswith("_info")}
    return found | _measured(
        monitor_of(intel_rdt, container_id, group) or group, _lines(f"{root}/info/L3_MON/mon_features")
    )


def _measured(group: str, features: list[str]) -> dict[str, object]:
    """Bandwidth and cache occupancy by domain, of those that the processor can measure."""
    try:
        with os.scandir(f"{group}/mon_data") as entries:
            domains = sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return {}
    found: dict[str, object] = {}
    for key, files in (("mbm_stats", ("mbm_total_bytes", "mbm_local_bytes")), ("cmt_stats", ("llc_occupancy",))):
        if any(file in features for file in files):
            found[key] = [
                {file: _number(f"{domain}/{file}") if file in features else 0 for file in files} for domain in domains
            ]
    return found


def _info(directory: str, texts: tuple[str, ...], numbers: tuple[str, ...]) -> dict[str, object]:
    found: dict[str, object] = {name: _text(f"{directory}/{name}") for name in texts}
    found.update((name, _number(f"{directory}/{name}")) for name in numbers)
    return {name: value for name, value in found.items() if value}


def _last(lines: list[str], resource: str) -> str:
    """The last line that is about `resource`, as runc picks it: L3CODE and L3DATA are about L3."""
    return next((line for line in reversed(lines) if resource in line), "")


def _lines(path: str) -> list[str]:
    return [line.strip() for line in _text(path).split("\n") if line.strip()]


def _number(path: str) -> int:
    """A number; 0 where it is "Unavailable", as a counter is at first."""
    text = _text(path)
    return int(text) if text.isdecimal() else 0


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""

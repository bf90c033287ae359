"""How a setting is spelled. Loaded only for a configuration that has one."""

from __future__ import annotations

from sysvisor_runc.errors import SpecError

_FLAGS = ("SYSCONT_MODE", "HONOR_CAPS", "CHOWN_ROOTFS", "CPUSET_FROM_QUOTA")

# Accepted, kept for sysvisor-fs, and without effect on the conversion.
_RESERVED = ("IGNORE_SYSFS_CHOWN", "ALLOW_TRUSTED_XATTR")


def read(wishes: list[tuple[str, str]]) -> dict[str, bool | frozenset[str]]:
    """What settings (JSON path, `SYSVISOR_SYSCONT_MODE=FALSE` or `org.sysvisor.syscont-mode=false`) set to what.

    Later ones win. Raises SpecError for an unknown variable or a value that is not one. Other parts of the runtime have
    annotations of their own, so an unknown one is no mistake here.
    """
    found: dict[str, bool | frozenset[str]] = {}
    for path, entry in wishes:
        found.update(_read(path, entry))
    return found


def not_allowed(wishes: list[tuple[str, str]]) -> SpecError:
    """The error for one of these wishes to be a plain container, by the last that says so."""
    path = next(path for path, entry in reversed(wishes) if "syscont_mode" in _read(path, entry))
    return SpecError(
        path,
        "a plain container is asked for, and this runtime makes system containers only",
        hint="leave the setting out, or --only-syscont, SYSVISOR_SYSCONT_MODE=ONLY of the runtime",
    )


def _read(path: str, entry: str) -> dict[str, bool | frozenset[str]]:
    full_name, _, value = entry.partition("=")
    is_variable = full_name.startswith("SYSVISOR_")
    name = full_name.removeprefix("SYSVISOR_").removeprefix("org.sysvisor.").upper().replace("-", "_")
    if name in _FLAGS:
        return {name.lower(): _truth(path, value)}
    if name == "SKIP_UID_SHIFT":
        return {"skip_uid_shift": _destinations(path, value)}
    if is_variable and name not in _RESERVED:
        hint = "variables that start with SYSVISOR_ are settings of the runtime"
        raise SpecError(path, f"unknown setting {full_name!r}", hint=hint)
    return {}


def _truth(path: str, value: str) -> bool:
    word = value.lower()
    if word not in ("true", "false"):
        raise SpecError(path, f"expected TRUE or FALSE, not {value!r}")
    return word == "true"


def _destinations(path: str, value: str) -> frozenset[str]:
    destinations = value.split(",")
    for destination in destinations:
        if not destination.startswith("/") or destination != destination.strip():
            raise SpecError(path, f"expected absolute paths separated by commas, not {value!r}")
    return frozenset(destination.rstrip("/") or "/" for destination in destinations)

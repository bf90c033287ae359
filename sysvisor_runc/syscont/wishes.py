"""How a setting is spelled. Loaded only for a configuration that has one."""

from __future__ import annotations

from sysvisor_runc.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.syscont.settings import Settings

_FLAGS = ("SYSCONT_MODE", "HONOR_CAPS", "CHOWN_ROOTFS", "CPUSET_FROM_QUOTA")

# Accepted, kept for sysvisor-fs, and without effect on the conversion.
_RESERVED = ("IGNORE_SYSFS_CHOWN", "ALLOW_TRUSTED_XATTR")


def apply(settings: Settings, path: str, entry: str) -> None:
    """Apply `SYSVISOR_SYSCONT_MODE=FALSE`, or `org.sysvisor.syscont-mode=false`, found at a JSON path.

    Raises SpecError for an unknown variable or a value that is not one. Other parts of the runtime have annotations
    of their own, so an unknown one is no mistake here.
    """
    full_name, _, value = entry.partition("=")
    is_variable = full_name.startswith("SYSVISOR_")
    name = full_name.removeprefix("SYSVISOR_").removeprefix("org.sysvisor.").upper().replace("-", "_")
    if name in _FLAGS:
        setattr(settings, name.lower(), _truth(path, value))
    elif name == "SKIP_UID_SHIFT":
        settings.skip_uid_shift = _destinations(path, value)
    elif is_variable and name not in _RESERVED:
        hint = "variables that start with SYSVISOR_ are settings of the runtime"
        raise SpecError(path, f"unknown setting {full_name!r}", hint=hint)


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

"""What this program is called, which version it is, and what it was built with.

The only place that knows. `make install` writes `_build.py` beside it with COMMIT and BUILDTAGS; a checkout has none.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

NAME: "Final" = "sysvisor-runc"
VERSION: "Final" = "0.1.0"
SPEC_VERSION: "Final" = "1.3.0"
SPEC_VERSION_MIN: "Final" = "1.0.0"

# Optional at build time. `nokmem` (leave kernel memory alone) is known too, but off unless asked for.
DEFAULT_TAGS: "Final" = ("seccomp", "apparmor", "selinux", "ambient")


def buildtags() -> tuple[str, ...]:
    """The optional features of this build, in the order in which they are reported."""
    return tuple(str(_build_value("BUILDTAGS", " ".join(DEFAULT_TAGS))).split())


def commit() -> str:
    """The commit that `make install` installed, or `unknown` in a checkout."""
    return str(_build_value("COMMIT", "")) or "unknown"


def _build_value(name: str, default: str) -> object:
    try:
        build = __import__("sysvisor_runc._build", fromlist=[name])
    except ModuleNotFoundError:
        return default
    value: object = getattr(build, name, default)
    return value

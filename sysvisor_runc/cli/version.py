"""`sysvisor-runc --version`: what this is and what it was built with, in the lines of runc."""

from __future__ import annotations

import sys

from sysvisor_runc.version import NAME, SPEC_VERSION, VERSION, buildtags, commit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.parse import Options


def run(options: Options) -> int:
    """Print the version. Nobody needs to install anything for it to work: what is absent is left out."""
    del options
    lines = [
        f"{NAME} version {VERSION}",
        f"commit: {commit()}",
        f"spec: {SPEC_VERSION}",
        f"python: {'.'.join(map(str, sys.version_info[:3]))}",
    ]
    libseccomp = libseccomp_version() if "seccomp" in buildtags() else None
    if libseccomp:
        lines.append(f"libseccomp: {libseccomp}")
    lines.append(f"features: {' '.join(buildtags())}\n")
    sys.stdout.write("\n".join(lines))
    return 0


def libseccomp_version() -> str | None:
    """The version of the library that would be used, or None where it cannot be loaded."""
    try:
        from sysvisor_runc.kernel.libseccomp import seccomp_version
    except (OSError, ImportError, AttributeError):  # not installed, or older than any that we can use
        return None
    return ".".join(map(str, seccomp_version()))

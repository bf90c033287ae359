"""What this program was built with (`make BUILDTAGS=…`), asked where a container wants it."""

from __future__ import annotations

from sysvisor_runc.errors import SpecError
from sysvisor_runc.version import buildtags


def has(tag: str) -> bool:
    """Whether the feature is built in."""
    return tag in buildtags()


def require(tag: str, path: str) -> None:
    """Refuse what needs a feature that was left out; `path` is the JSON path that asks for it.

    Raises:
        SpecError: the feature is not built in.
    """
    if not has(tag):
        hint = f"build it in: make install BUILDTAGS='{' '.join((*buildtags(), tag))}'"
        raise SpecError(path, f"support for {tag} is not built into this program", hint=hint)

"""A configuration as the rules look at it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from sysvisor_runc.spec.types import Linux, Spec


class View:
    """A configuration with its namespaces looked up: `spaces` maps each type to its path, empty for a new one."""

    __slots__ = ("added", "linux", "rootless", "spaces", "spec", "warn")

    def __init__(self, spec: Spec, warn: list[str], rootless: bool, added: Collection[str]) -> None:
        self.spec = spec
        self.linux: Linux = spec.get("linux", {})
        self.warn = warn
        self.rootless = rootless
        self.added = added
        self.spaces: dict[str, str] = {}

    def has(self, namespace: str) -> bool:
        return namespace in self.spaces or namespace in self.added

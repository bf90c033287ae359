"""Capabilities that the caller itself lacks, for launches without a user namespace."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from sysvisor_runc.spec.types import Capabilities

    SetName = Literal["bounding", "effective", "inheritable", "permitted", "ambient"]

_SETS: tuple[SetName, ...] = ("bounding", "effective", "inheritable", "permitted", "ambient")


def without_lacking(
    capabilities: Capabilities, names: tuple[str, ...], held: int
) -> tuple[Capabilities, tuple[str, ...]]:
    """The sets reduced to what the caller holds, and what was dropped. `names[n]` is bit n of the mask `held`.

    Asking the kernel for more is EPERM. A name that is not in `names` is left to whoever applies the sets.
    """
    lacking = {name for bit, name in enumerate(names) if not held >> bit & 1}
    reduced: Capabilities = {}
    dropped: dict[str, None] = {}
    for which in _SETS:
        if which in capabilities:
            reduced[which] = [name for name in capabilities[which] if name not in lacking]
            dropped.update((name, None) for name in capabilities[which] if name in lacking)
    return reduced, tuple(dropped)

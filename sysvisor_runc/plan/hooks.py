"""The hooks of config.json. Pure."""

from __future__ import annotations

from sysvisor_runc.child.hook import Hook
from sysvisor_runc.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Hook as HookSpec
    from sysvisor_runc.spec.types import Hooks


def parse_hooks(hooks: Hooks, kind: str) -> list[Hook]:
    """The hooks of one kind, in order."""
    found = []
    entries: list[HookSpec] = hooks.get(kind) or []  # type: ignore[assignment]  # kind is one of its keys
    for index, hook in enumerate(entries):
        args, env, timeout = hook.get("args") or [], hook.get("env"), hook.get("timeout")
        if not hook["path"].startswith("/"):
            raise SpecError(f"hooks.{kind}[{index}].path", f"{hook['path']!r} is not absolute")
        found.append(Hook(kind, index, hook["path"], args, env, timeout))
    return found

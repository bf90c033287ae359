"""The state root of an ordinary user, below $XDG_RUNTIME_DIR."""

from __future__ import annotations

import os

from sysvisor_runc.errors import SysvisorError, reason


def make_runtime_root(root: str) -> None:
    """Make the state root of an ordinary user. The sticky bit keeps it from being cleaned away (XDG basedir spec)."""
    try:
        os.makedirs(root, 0o700, exist_ok=True)
        os.chmod(root, 0o1700)
    except OSError as error:
        hint = "the path in $XDG_RUNTIME_DIR must be writable, or give another with --root"
        raise SysvisorError(f"make state root {root!r}: {reason(error)}", hint=hint) from error

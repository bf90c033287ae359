"""What a command tells a resident supervisor about itself, for `events`. Without one it costs a stat."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.parse import Options


def publish(options: Options, kind: str, data: dict[str, object] | None = None) -> None:
    """Tell that `kind` was done to the command's container. Never fails and never waits."""
    root = options.globals.root
    # Before the client is loaded, which costs more. Its names, `launch.tell`'s DIRECTORY and SOCKET.
    if not os.path.exists(f"{root}/@supervisor/control.sock"):
        return
    from sysvisor_runc.launch.tell import tell

    tell(root, {"op": "publish", "kind": kind, "id": options.args[0], "data": data or {}})

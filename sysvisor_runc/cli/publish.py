"""What a command tells a resident supervisor about itself, for `events`. Without one it costs a stat."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysvisor_runc.cli.parse import Options


def is_heard(options: Options) -> bool:
    """Whether somebody is there to be told, so that it pays to find out what."""
    # Before the client is loaded, which costs more. Its names, `launch.tell`'s DIRECTORY and SOCKET.
    return os.path.exists(f"{options.globals.root}/@supervisor/control.sock")


def publish(options: Options, kind: str, data: dict[str, object] | None = None, fds: Sequence[int] = ()) -> None:
    """Tell that `kind` was done to the command's container. Never fails and never waits."""
    if not is_heard(options):
        return
    from sysvisor_runc.launch.tell import tell

    tell(options.globals.root, {"op": "publish", "kind": kind, "id": options.args[0], "data": data or {}}, fds)

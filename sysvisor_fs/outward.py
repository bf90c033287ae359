"""The daemon's sockets, put together: control and metrics at once, gRPC as soon as it is loaded.

RUN_DIR/                 0700
    sysvisorfs.sock      the contract (gRPC), 0600
    control.sock         control.py
    metrics.sock         metrics.py
"""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

from sysvisor_fs.control import Control
from sysvisor_fs.door import Door, listen, listen_tcp, private_directory
from sysvisor_fs.metrics import Metrics
from sysvisor_fs.metrics import text as metrics_text
from sysvisor_runc.contract.names import CONTROL_SOCKET, GRPC_SOCKET, METRICS_SOCKET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sysvisor_fs.contract import Registry
    from sysvisor_fs.service import Server

_KINDS = {
    GRPC_SOCKET: socket.SOCK_STREAM,
    CONTROL_SOCKET: socket.SOCK_SEQPACKET,
    METRICS_SOCKET: socket.SOCK_STREAM,
}


def make_run_dir(path: str) -> None:
    """Make the directory, or take one that root alone can enter.

    Raises:
        PermissionError: it is somebody else's, or others may enter it.
    """
    os.makedirs(path, 0o700, exist_ok=True)
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError(13, "expected a directory of mode 0700 that is ours", path)


class Outward:
    """Everything that others connect to."""

    def __init__(
        self, registry: Registry, run_dir: str, *, tcp_port: int = 0, inherited: Mapping[str, int] | None = None
    ) -> None:
        """Listen, and serve control and metrics. On the running loop.

        `inherited`: listening sockets that systemd has opened, by the file's name (`control.sock`, …). `tcp_port`: the
        loopback interface's, for runtimes of 2019; 0 for none.

        Raises:
            OSError: a socket cannot be had.
        """
        self._registry = registry
        self._server: Server | None = None
        make_run_dir(run_dir)
        found = inherited or {}
        sockets = {
            name: socket.socket(fileno=found[name]) if name in found else listen(f"{run_dir}/{name}", kind)
            for name, kind in _KINDS.items()
        }
        for one in sockets.values():
            one.setblocking(False)
        doors = [sockets[GRPC_SOCKET]]
        if tcp_port:
            doors.append(listen_tcp(tcp_port))
        self._private = private_directory()
        self._door = Door(doors, f"/proc/self/fd/{self._private}/grpc")
        self._control = Control(sockets[CONTROL_SOCKET], registry, self.metrics)
        self._metrics = Metrics(sockets[METRICS_SOCKET], self.metrics)

    async def serve_grpc(self) -> None:
        """Load gRPC and let those in who have waited for it."""
        from sysvisor_fs.service import serve

        self._server = await serve(self._registry, f"unix:/proc/self/fd/{self._private}/grpc")
        self._door.open()

    def metrics(self) -> str:
        """The figures of this moment."""
        calls = {} if self._server is None else self._server.service.counts
        return metrics_text(self._registry.status(), calls, self._door.refused)

    async def close(self, grace: float = 1.0) -> None:
        """Take nothing new, let the calls that are under way end."""
        self._door.close()
        self._control.close()
        self._metrics.close()
        if self._server is not None:
            await self._server.stop(grace)
        os.close(self._private)

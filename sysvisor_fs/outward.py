"""The daemon's sockets, put together: control and metrics are its own, gRPC is for the gateway.

RUN_DIR/                 0700
    sysvisorfs.sock      the contract (gRPC), 0600: activation.py
    control.sock         control.py
    metrics.sock         metrics.py
"""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

from sysvisor_fs.activation import Gateway
from sysvisor_fs.control import Control
from sysvisor_fs.door import listen, listen_tcp
from sysvisor_fs.metrics import Metrics
from sysvisor_fs.metrics import text as metrics_text
from sysvisor_runc.contract.names import CONTROL_SOCKET, GRPC_SOCKET, METRICS_SOCKET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sysvisor_fs.contract import DaemonStatus, Registry
    from sysvisor_fs.options import Options

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


def _listener(path: str, inherited: int) -> socket.socket:
    """The one that systemd has opened, or our own."""
    listener = socket.socket(fileno=inherited) if inherited >= 0 else listen(path, _KINDS[os.path.basename(path)])
    listener.setblocking(False)
    return listener


class Outward:
    """Everything that others connect to."""

    def __init__(self, registry: Registry, options: Options, inherited: Mapping[str, int]) -> None:
        """Listen, and serve. On the running loop.

        `inherited`: listening sockets that systemd has opened, by the file's name (`control.sock`, …).

        Raises:
            OSError: a socket cannot be had.
        """
        self._registry = registry
        make_run_dir(options.run_dir)
        sockets = {name: _listener(f"{options.run_dir}/{name}", inherited.get(name, -1)) for name in _KINDS}
        doors = [sockets[GRPC_SOCKET]]
        if options.tcp_port:
            doors.append(listen_tcp(options.tcp_port))
        self._control = Control(sockets[CONTROL_SOCKET], registry, self.status, self.metrics)
        self._gateway = Gateway(options, doors, self._control.serve)
        self._metrics = Metrics(sockets[METRICS_SOCKET], self.metrics)

    def status(self) -> DaemonStatus:
        """What there is at this moment."""
        return {**self._registry.status(), "gatewayPid": self._gateway.pid}

    def metrics(self) -> str:
        """The figures of this moment."""
        gateway = self._gateway
        return metrics_text(self._registry.status(), self._control.calls.counts, gateway.starts, gateway.refused)

    async def close(self) -> None:
        """Take nothing new, let the calls that are under way end."""
        await self._gateway.close()
        self._control.close()
        self._metrics.close()

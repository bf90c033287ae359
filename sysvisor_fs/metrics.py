"""Figures for monitoring: OpenMetrics text, over HTTP on a unix socket.

curl --unix-socket /run/sysvisor/metrics.sock http://localhost/metrics
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sysvisor_fs.door import is_welcome
from sysvisor_runc import log

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Mapping

    from sysvisor_fs.contract import FileStatus, Status

    Sample = tuple[str, Mapping[str, str], float]  # suffix, labels, value

TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_REQUEST_MAX = 8192
_PATIENCE = 5.0
_CLIENTS = 16


def text(status: Status, calls: Mapping[tuple[str, str], int], gateways: int, refused: int) -> str:
    """The whole exposition.

    `calls`: of the contract, by method and status code; `gateways`: how many were started; `refused`: gRPC connections
    that were turned away.
    """
    containers = status["containers"]
    lines = [
        *_family("containers", "gauge", "Containers that are served.", [("", {}, len(containers))]),
        *_family(
            "container_requests",
            "counter",
            "File system requests answered for a container.",
            [("_total", {"id": one["id"]}, one["requests"]) for one in containers],
        ),
        *_family("requests", "counter", "File system requests answered.", [("_total", {}, status["requests"])]),
        *_family("file_seconds", "summary", "Time spent answering requests for a file.", _summaries(status["files"])),
        *_family(
            "calls",
            "counter",
            "Calls of the contract that have ended, over gRPC or the control socket.",
            [("_total", {"method": method, "code": code}, n) for (method, code), n in sorted(calls.items())],
        ),
        *_family("gateway_starts", "counter", "Processes started to speak gRPC.", [("_total", {}, gateways)]),
        *_family(
            "refused_connections", "counter", "Connections of peers that are not root.", [("_total", {}, refused)]
        ),
        "# EOF",
    ]
    return "\n".join(lines) + "\n"


def _summaries(files: Iterable[FileStatus]) -> list[Sample]:
    samples: list[Sample] = []
    for one in files:
        labels = {"file": one["path"]}
        samples += [("_count", labels, one["requests"]), ("_sum", labels, one["seconds"])]
    return samples


def _family(name: str, kind: str, explanation: str, samples: Iterable[Sample]) -> list[str]:
    full = f"sysvisor_fs_{name}"
    lines = [f"# TYPE {full} {kind}", f"# HELP {full} {explanation}"]
    for suffix, labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        lines.append(f"{full}{suffix}{{{inside}}} {value:.17g}" if inside else f"{full}{suffix} {value:.17g}")
    return lines


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class Metrics:
    """Serves one listening socket: every GET is answered by the figures of that moment."""

    def __init__(self, listener: socket.socket, exposition: Callable[[], str]) -> None:
        self._exposition = exposition
        self._listener = listener
        self._tasks: set[asyncio.Task[None]] = set()
        asyncio.get_running_loop().add_reader(listener, self._accept)

    def close(self) -> None:
        """Stop listening."""
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        for task in self._tasks:
            task.cancel()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            log.debug(f"accept on the metrics socket: {error}")
            return
        if len(self._tasks) >= _CLIENTS or not is_welcome(connection):
            connection.close()
            return
        connection.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._answer(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, connection: socket.socket) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._exchange(connection)
        except (OSError, TimeoutError) as error:
            log.debug(f"metrics: {error}")
        finally:
            connection.close()

    async def _exchange(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        head = b""
        while b"\r\n\r\n" not in head and len(head) < _REQUEST_MAX:
            part = await loop.sock_recv(connection, _REQUEST_MAX)
            if not part:
                break
            head += part
        if head.startswith(b"GET "):
            status, kind, body = "200 OK", TYPE, self._exposition().encode()
        else:
            status, kind, body = "405 Method Not Allowed", "text/plain", b"only GET is understood\n"
        lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close"]
        await loop.sock_sendall(connection, "\r\n".join([*lines, "", ""]).encode() + body)

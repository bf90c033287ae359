"""The process that speaks gRPC: each call is one request to the daemon, over a connection like the control socket's.

It is handed connections whose peers the daemon has looked at, and ends when there is nobody who could hand it any more.
Killing it hurts no reader, nor does anything that it does: the daemon starts another one (`activation`).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections import deque
from typing import TYPE_CHECKING

from sysvisor_fs import packets
from sysvisor_fs.relay import Relay, private_directory
from sysvisor_fs.service import CALLS_AT_ONCE, serve
from sysvisor_runc import log
from sysvisor_runc.contract.names import PACKET_MAX
from sysvisor_runc.kernel import prctl

if TYPE_CHECKING:
    Message = dict[str, object]

_GRACE = 1.0  # seconds for the calls that are under way when it is to end
_NICE = 10  # readers come before callers
_SO_SNDBUFFORCE = 32  # socket(7); not in the socket module


class Daemon:
    """Asks the daemon, which answers in order."""

    def __init__(self, link: socket.socket) -> None:
        link.setblocking(False)
        link.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, CALLS_AT_ONCE * PACKET_MAX)
        self._link = link
        self._waiting: deque[asyncio.Future[Message]] = deque()
        asyncio.get_running_loop().add_reader(link, self._readable)

    async def ask(self, request: Message) -> Message:
        """The answer, which is `{"error": TEXT, "code": STATUS CODE}` for a failure.

        Raises:
            OSError: the daemon has ended.
        """
        packet = json.dumps(request).encode()
        if len(packet) > PACKET_MAX:
            return {"error": f"a request of more than {PACKET_MAX} bytes", "code": "INVALID_ARGUMENT"}
        self._link.send(packet)  # there is room for as many as there can be
        # Its place stays, even if whoever asks loses patience.
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        return await answer

    def _readable(self) -> None:
        try:
            data = self._link.recv(PACKET_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._link)
            for answer in self._waiting:
                if not answer.done():
                    answer.set_exception(ConnectionResetError("the daemon has ended"))
            return
        answer = self._waiting.popleft()
        if not answer.done():
            answer.set_result(json.loads(data))


def main(handed: int, calls: int) -> int:
    """Serve the connections that come in at `handed`, by asking at `calls`, until there is an end of them."""
    prctl.set_name("sysvisor-fs-gw")
    prctl.prctl(prctl.PR_SET_PDEATHSIG, signal.SIGKILL)  # were it to hang when the daemon ends
    code = asyncio.run(_serve(socket.socket(fileno=handed), socket.socket(fileno=calls)))
    os._exit(code)  # gRPC's threads would take their time


async def _serve(handed: socket.socket, calls: socket.socket) -> int:
    directory = private_directory()
    inner = f"/proc/self/fd/{directory}/grpc"
    try:
        server = await serve(Daemon(calls), f"unix:{inner}")
        os.nice(_NICE)
    except (ImportError, OSError) as problem:
        log.error(f"gRPC cannot be served: {problem}")
        return 1
    relay = Relay(inner)
    end = asyncio.Event()
    handed.setblocking(False)
    asyncio.get_running_loop().add_reader(handed, _take, handed, relay, end)
    await end.wait()
    await server.stop(_GRACE)
    return 0


def _take(handed: socket.socket, relay: Relay, end: asyncio.Event) -> None:
    try:
        _, descriptors = packets.receive(handed)
    except BlockingIOError:
        return
    except packets.Incomplete as problem:
        log.warning(f"a gRPC connection is lost: {problem}")
        return
    except (EOFError, OSError):
        asyncio.get_running_loop().remove_reader(handed)
        end.set()
        return
    for fd in descriptors:
        relay.lead(socket.socket(fileno=fd))

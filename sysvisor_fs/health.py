"""grpc.health.v1 for the gateway: the service is well if the daemon behind it answers, which is asked for when somebody
wants to know, and now and then while somebody watches.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Answer = dict[str, object]
    Ask = Callable[[Answer], Awaitable[Answer]]

_PATIENCE = 1.0  # seconds for its answer; whoever probes has little more
_EVERY = 1.0


class Pulse:
    """Whether the daemon answers."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._asked: asyncio.Future[Answer] | None = None

    async def beats(self) -> bool:
        """Ask it, unless it still owes an answer, and wait for that."""
        if self._asked is None or self._asked.done():
            self._asked = asyncio.ensure_future(self._ask({"op": "served"}))
        try:
            answer = await asyncio.wait_for(asyncio.shield(self._asked), _PATIENCE)
        except (OSError, TimeoutError):
            return False
        return "error" not in answer


def add_health(server: object, ask: Ask, services: Sequence[str]) -> None:
    """Have `server` tell how `services` are; `ask` asks the daemon.

    Raises:
        ImportError: the package grpcio-health-checking is not installed.
    """
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc

    pulse = Pulse(ask)

    class Health(health.aio.HealthServicer):  # type: ignore[misc]  # grpc has no types
        async def Check(self, request: object, context: object) -> object:
            await self._look()
            return await super().Check(request, context)

        async def Watch(self, request: object, context: object) -> None:
            await self._look()
            looking = asyncio.get_running_loop().create_task(self._keep_looking())
            try:
                await super().Watch(request, context)
            finally:
                looking.cancel()

        async def _keep_looking(self) -> None:
            while True:
                await asyncio.sleep(_EVERY)
                await self._look()

        async def _look(self) -> None:
            status = health_pb2.HealthCheckResponse
            now = status.SERVING if await pulse.beats() else status.NOT_SERVING
            for name in services:
                await self.set(name, now)

    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)

"""The journal and the control socket of a state root, served from a thread, and nothing else of a supervisor."""

import _socket
import asyncio
import pathlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sysvisor_runc.aio import loop as loops
from sysvisor_runc.aio.control import ControlServer
from sysvisor_runc.aio.feed import handlers
from sysvisor_runc.aio.journal import Journal
from sysvisor_runc.launch import tell


class Feeder:
    """Publishes into the journal that is served."""

    def __init__(self, loop: asyncio.AbstractEventLoop, journal: Journal, server: ControlServer) -> None:
        self._loop = loop
        self._journal = journal
        self._server = server
        self.over = asyncio.Event()

    def publish(self, kind: str, container: str, **data: object) -> int:
        """Publish an event, as the supervisor does; its number."""

        async def publish() -> int:
            return self._journal.publish(kind, container, data)

        return asyncio.run_coroutine_threadsafe(publish(), self._loop).result(10)

    def flood(self, container: str, count: int) -> None:
        """Publish many events, with turns for others between."""

        async def flood() -> None:
            for number in range(count):
                self._journal.publish("health", container, {"number": number})
                if number % 100 == 0:
                    await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(flood(), self._loop).result(60)

    def readers(self) -> int:
        """How many are connected."""
        return len(self._server.connections)


@contextmanager
def feeder(root: pathlib.Path) -> Iterator[Feeder]:
    """Serve the state root until the end of the `with` block."""
    directory = root / tell.DIRECTORY
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    root.chmod(0o700)
    ready = threading.Event()
    made: list[Feeder] = []

    async def serve() -> None:
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        tell.with_path(str(root), listener.bind)
        listener.listen(64)
        journal = Journal(str(directory / "events"))
        server = ControlServer(asyncio.get_running_loop(), listener, handlers(journal))
        made.append(Feeder(asyncio.get_running_loop(), journal, server))
        ready.set()
        try:
            await made[0].over.wait()
        finally:
            server.close()
            await asyncio.sleep(0)
            journal.close()
            (directory / tell.SOCKET).unlink()

    thread = threading.Thread(target=loops.run, args=(serve(),))
    thread.start()
    assert ready.wait(20)
    try:
        yield made[0]
    finally:
        made[0]._loop.call_soon_threadsafe(made[0].over.set)
        thread.join(20)

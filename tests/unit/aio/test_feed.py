"""The journal over the control socket: subscribing, publishing, and readers that do not read."""

import _socket
import asyncio
import pathlib
from collections.abc import Callable

import pytest

from sysvisor_runc.aio.control import ControlServer
from sysvisor_runc.aio.feed import handlers
from sysvisor_runc.aio.journal import Journal
from sysvisor_runc.launch import tell as client
from tests.support.loops import Run


@pytest.fixture
def root(tmp_path: pathlib.Path) -> str:
    (tmp_path / client.DIRECTORY).mkdir()
    return str(tmp_path)


async def with_client(root: str, body: Callable[[Journal], None]) -> None:
    """Serve a journal in this thread's loop while `body` runs in another one."""
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    client.with_path(root, listener.bind)
    listener.listen()
    journal = Journal(f"{root}/{client.DIRECTORY}/events")
    server = ControlServer(asyncio.get_running_loop(), listener, handlers(journal))
    try:
        await asyncio.wait_for(asyncio.to_thread(body, journal), 60)
    finally:
        server.close()
        await asyncio.sleep(0)
        journal.close()


def test_commands_publish_and_readers_hear_of_it(run: Run, root: str) -> None:
    """Old events, then those that a command tells of, each with its number."""

    def body(_journal: Journal) -> None:
        client.tell(root, {"op": "publish", "kind": "pause", "id": "a"})
        with client.Dialogue(root) as reader:
            while (answer := reader.ask({"op": "events", "since": 0, "ids": ["a"], "follow": False}))["seq"] == 0:
                assert reader.line() == {"type": "end"}
            assert answer == {"ok": True, "seq": 1}
            event = reader.line()
            assert event is not None and (event["type"], event["seq"]) == ("pause", 1)
            assert reader.line() == {"type": "end"}
            reader.ask({"op": "events", "ids": ["b"]})
            client.ask(root, {"op": "publish", "kind": "exec", "id": "a"})
            client.ask(root, {"op": "publish", "kind": "exec", "id": "b", "data": {"pid": 7}})
            event = reader.line()
            assert event is not None and (event["seq"], event["data"]) == (3, {"pid": 7})

    run(with_client(root, body))


@pytest.mark.parametrize(
    "request_",
    [
        {"op": "publish", "kind": "exit", "id": "a"},
        {"op": "publish", "kind": "exec"},
        {"op": "publish", "kind": "exec", "id": "a", "data": [1]},
        {"op": "publish", "kind": "exec", "id": "a", "data": {"x": "y" * 5000}},
        {"op": "events", "since": "1"},
        {"op": "events", "since": -1},
        {"op": "events", "ids": "a"},
    ],
)
def test_what_makes_no_sense_is_refused(run: Run, root: str, request_: dict[str, object]) -> None:
    """A command cannot tell of a container's end, nor anything large; numbers and lists are what they must be."""

    def body(journal: Journal) -> None:
        with pytest.raises(client.SupervisorError):
            client.ask(root, request_)
        assert journal.seq == 0

    run(with_client(root, body))


def test_a_reader_that_does_not_read_holds_up_nobody(run: Run, root: str) -> None:
    """Twenty thousand events go by; another reader gets all, and the slow one is told how many it has lost."""
    count = 20_000

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def body(journal: Journal) -> None:
            slow, quick = client.Dialogue(root), client.Dialogue(root)
            slow.ask({"op": "events"})
            quick.ask({"op": "events"})
            for first in range(0, count, 100):
                loop.call_soon_threadsafe(lambda: [journal.publish("exec", "a", {}) for _ in range(100)])
                assert [line["seq"] for line in (quick.line() for _ in range(100)) if line] == list(
                    range(first + 1, first + 101)
                )
            heard, lost = 0, 0
            while heard + lost < count:
                line = slow.line()
                assert line is not None
                if line["type"] == "dropped":
                    lost += int(str(line["count"]))
                else:
                    heard += 1
            assert lost > 0
            assert heard + lost == count
            slow.close()
            quick.close()

        await with_client(root, body)

    run(main())

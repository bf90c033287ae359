"""The control socket: requests, answers, streams and descriptors between the two ends, on either loop."""

import _socket
import asyncio
import os
import pathlib
import threading
from collections.abc import Callable, Coroutine

import pytest

from sysvisor_runc.aio.control import BACKLOG_MAX, Call, ControlServer, Refusal
from sysvisor_runc.launch import tell as client
from tests.support.loops import Run


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    """A state root with a supervisor's directory, behind a path that is too long for a socket's address."""
    path = tmp_path / ("deep" * 30)
    (path / client.DIRECTORY).mkdir(parents=True)
    return path


def serve(root: pathlib.Path) -> ControlServer:
    """A server with a few operations."""

    def pass_back(call: Call) -> None:
        call.line({"ok": True}, call.fds)

    async def count(call: Call) -> None:
        for number in range(3):
            call.line({"number": number})
            await call.drain()
        call.connection.close()

    async def flood(call: Call) -> None:
        while True:
            call.line({"filler": "x" * 10000})
            await call.drain()

    def refuse(call: Call) -> dict[str, object]:
        raise Refusal(f"not {call.text('id')!r}", hint="another one", exit_code=7)

    def fail(_call: Call) -> dict[str, object]:
        raise ZeroDivisionError("by zero")

    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    client.with_path(str(root), listener.bind)
    listener.listen(64)
    return ControlServer(
        asyncio.get_running_loop(),
        listener,
        {
            "echo": lambda call: {"said": call.text("text")},
            "pass": pass_back,
            "count": count,
            "flood": flood,
            "refuse": refuse,
            "fail": fail,
        },
    )


async def beside(function: Callable[[], None]) -> None:
    """Run what blocks in a thread while the loop serves."""
    await asyncio.wait_for(asyncio.to_thread(function), 20)


def with_server(root: pathlib.Path, function: Callable[[], None]) -> Coroutine[object, object, None]:
    async def main() -> None:
        server = serve(root)
        try:
            await beside(function)
        finally:
            server.close()

    return main()


def test_a_request_is_answered(run: Run, root: pathlib.Path) -> None:
    """What is asked is answered on the same connection, several times."""

    def talk() -> None:
        with client.Dialogue(str(root)) as dialogue:
            assert dialogue.ask({"op": "echo", "text": "a\n\udcff"}) == {"ok": True, "said": "a\n\udcff"}
            assert dialogue.ask({"op": "echo", "text": "b" * 100_000})["said"] == "b" * 100_000

    run(with_server(root, talk))


def test_descriptors_travel_both_ways(run: Run, root: pathlib.Path) -> None:
    """A descriptor goes with a request and comes back with the answer, close-on-exec."""

    def talk() -> None:
        reading, writing = os.pipe()
        answer, fds = client.ask(str(root), {"op": "pass"}, [writing])
        os.close(writing)
        assert answer == {"ok": True}
        assert len(fds) == 1
        assert not os.get_inheritable(fds[0])
        os.write(fds[0], b"through")
        os.close(fds[0])
        assert os.read(reading, 100) == b"through"
        assert os.read(reading, 100) == b""
        os.close(reading)

    run(with_server(root, talk))


def test_a_stream_comes_line_by_line(run: Run, root: pathlib.Path) -> None:
    """An answer may go on for many lines and ends with the connection."""

    def talk() -> None:
        with client.Dialogue(str(root)) as dialogue:
            first = dialogue.ask({"op": "count"})
            assert [first["number"], *(line["number"] for line in dialogue.lines())] == [0, 1, 2]

    run(with_server(root, talk))


def test_a_refusal_is_told(run: Run, root: pathlib.Path) -> None:
    """What a handler refuses arrives with its hint and exit code, and so do unknown operations and faults."""

    def talk() -> None:
        with client.Dialogue(str(root)) as dialogue:
            with pytest.raises(client.SupervisorError, match="not 'web'") as caught:
                dialogue.ask({"op": "refuse", "id": "web"})
            assert caught.value.hint == "another one"
            assert caught.value.exit_code == 7
            with pytest.raises(client.SupervisorError, match="'id' must be a string"):
                dialogue.ask({"op": "refuse"})
            with pytest.raises(client.SupervisorError, match="unknown operation 'dance'"):
                dialogue.ask({"op": "dance"})
            with pytest.raises(client.SupervisorError, match="ZeroDivisionError"):
                dialogue.ask({"op": "fail"})
            assert dialogue.ask({"op": "echo", "text": "still there"})["said"] == "still there"

    run(with_server(root, talk))


@pytest.mark.parametrize("sent", [b"nonsense\n", b"[1]\n", b'{"op": 5}\n', b"\xff\n", b"\n"])
def test_nonsense_is_refused(run: Run, root: pathlib.Path, sent: bytes) -> None:
    """Whatever arrives, the answer is an error and the server lives on."""

    def talk() -> None:
        link = client.connect(str(root))
        link.sendall(sent)
        assert b'"error"' in link.recv(4096)
        link.close()
        assert client.ask(str(root), {"op": "echo", "text": "x"})[0]["said"] == "x"

    run(with_server(root, talk))


def test_an_endless_request_is_cut_off(run: Run, root: pathlib.Path) -> None:
    """A peer that sends without end is sent away before it fills our memory."""

    def talk() -> None:
        link = client.connect(str(root))
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            link.sendall(b"x" * (64 << 20))
        link.close()

    run(with_server(root, talk))


def test_a_peer_that_never_reads_holds_nobody_up(run: Run, root: pathlib.Path) -> None:
    """Streams wait for their reader, and only they do."""

    async def main() -> None:
        server = serve(root)

        def talk() -> None:
            deaf = client.connect(str(root))
            deaf.sendall(b'{"op": "flood"}\n')
            for _ in range(20):
                assert client.ask(str(root), {"op": "echo", "text": "x"})[0]["said"] == "x"
            assert all(connection.backlog < BACKLOG_MAX for connection in server.connections)
            deaf.close()

        await beside(talk)
        gone = asyncio.Event()
        server.changed = lambda: None if server.connections else gone.set()
        if server.connections:
            await asyncio.wait_for(gone.wait(), 20)
        server.close()

    run(main())


def test_telling_needs_nobody(root: pathlib.Path) -> None:
    """Without a supervisor `tell` does nothing, `ask` says so."""
    client.tell(str(root), {"op": "publish"})
    client.tell("/does/not/exist", {"op": "publish"})
    with pytest.raises(client.NoSupervisor):
        client.ask(str(root), {"op": "status"})


def test_telling_does_not_wait(root: pathlib.Path) -> None:
    """A supervisor that has been stopped does not hold up the command that tells it something."""
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    client.with_path(str(root), listener.bind)
    listener.listen(1)
    done = threading.Event()

    def talk() -> None:
        for _ in range(50):
            client.tell(str(root), {"op": "publish", "data": "x" * 100_000})
        done.set()

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    assert done.wait(10)
    listener.close()
    with pytest.raises(client.NoSupervisor):
        client.ask(str(root), {"op": "status"})


def test_what_is_told_arrives(run: Run, root: pathlib.Path) -> None:
    """A request whose sender has gone is carried out all the same."""

    async def main() -> None:
        heard: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        server = serve(root)

        def publish(call: Call) -> dict[str, object]:
            heard.set_result(call.request["kind"])
            return {}

        server.handlers["publish"] = publish
        await beside(lambda: client.tell(str(root), {"op": "publish", "kind": "pause"}))
        assert await asyncio.wait_for(heard, 20) == "pause"
        server.close()

    run(main())

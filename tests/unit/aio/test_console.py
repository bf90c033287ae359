"""Copying between descriptors: nothing lost, nothing unbounded, on either loop."""

import asyncio
import os
import pathlib
import pty
import threading
import tty
from collections.abc import Iterator

import pytest

from sysvisor_runc.aio.console import BOUND, LEFT_BEHIND, Pump, Stream, hold_open, pollable
from tests.support.loops import Run

PIPE = 64 * 1024  # what a pipe holds


@pytest.fixture
def fds() -> Iterator[list[int]]:
    """A list for descriptors; what is in it at the end is closed."""
    opened: list[int] = []
    yield opened
    for fd in opened:
        os.close(fd)


def pipe(fds: list[int]) -> tuple[int, int]:
    ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    fds.extend(ends)
    return ends


def raw_pty(fds: list[int]) -> tuple[int, int]:
    """A pseudo-terminal that changes no byte, its master non-blocking."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    fds.extend((master, slave))
    return master, slave


def close(fds: list[int], fd: int) -> None:
    fds.remove(fd)
    os.close(fd)


class Copying:
    """A pump that has been started; `ended` and `broken` are events."""

    def __init__(self, source: int, sink: int) -> None:
        self.ended = asyncio.Event()
        self.broken = asyncio.Event()
        self.pump = Pump(
            asyncio.get_running_loop(), source, sink, ended=self.ended.set, broken=self.broken.set
        )  # fmt: skip
        self.pump.start()


async def take(fd: int, size: int, pause: float = 0) -> bytes:
    """Read `size` bytes from a non-blocking descriptor, slowly if asked to."""
    taken = b""
    async with asyncio.timeout(20):
        while len(taken) < size:
            try:
                taken += os.read(fd, min(8192, size - len(taken)))
            except BlockingIOError:
                await asyncio.sleep(0.001)
            await asyncio.sleep(pause)
    return taken


def fill(fd: int, data: bytes) -> int:
    """Write until nothing more is taken; how much was."""
    total = 0
    try:
        while True:
            total += os.write(fd, data)
    except BlockingIOError:
        return total


def test_a_slow_reader_gets_every_byte(run: Run, fds: list[int], tmp_path: pathlib.Path) -> None:
    """Back-pressure loses nothing: a file through the pump into a reader that dawdles."""
    wanted = os.urandom(1 << 20)
    (tmp_path / "data").write_bytes(wanted)

    async def main() -> None:
        source = os.open(tmp_path / "data", os.O_RDONLY)
        fds.append(source)
        reader, sink = pipe(fds)
        copying = Copying(source, sink)
        assert await take(reader, len(wanted), pause=0.0005) == wanted
        await asyncio.wait_for(copying.ended.wait(), 10)

    run(main())


def test_a_stopped_reader_stops_the_source(run: Run, fds: list[int]) -> None:
    """What is taken from a source whose output nobody reads is bounded by the pump's buffer."""

    async def main() -> None:
        source, writer = pipe(fds)
        reader, sink = pipe(fds)
        Copying(source, sink)
        taken = 0
        for _ in range(20):
            taken += fill(writer, b"x" * 4096)
            await asyncio.sleep(0.002)
        assert taken <= 2 * PIPE + BOUND
        assert len(await take(reader, taken)) == taken

    run(main())


def test_a_closed_reader_is_told_once(run: Run, fds: list[int]) -> None:
    """A sink that takes nothing any more breaks the copying, and the source is left alone."""

    async def main() -> None:
        source, writer = pipe(fds)
        reader, sink = pipe(fds)
        copying = Copying(source, sink)
        close(fds, reader)
        os.write(writer, b"x")
        await asyncio.wait_for(copying.broken.wait(), 10)
        os.write(writer, b"y")
        await asyncio.sleep(0.01)
        assert os.read(source, 10) == b"y"
        assert not copying.ended.is_set()

    run(main())


def test_files_are_copied_to_files(run: Run, fds: list[int], tmp_path: pathlib.Path) -> None:
    """Neither end needs to be pollable, and a shared offset is respected."""
    (tmp_path / "from").write_bytes(b"skipped" + b"z" * 300_000)

    async def main() -> None:
        source, sink = os.open(tmp_path / "from", os.O_RDONLY), os.open(tmp_path / "to", os.O_WRONLY | os.O_CREAT)
        fds.extend((source, sink))
        os.read(source, 7)
        copying = Copying(source, sink)
        await asyncio.wait_for(copying.ended.wait(), 10)
        assert (tmp_path / "to").read_bytes() == b"z" * 300_000

    run(main())


def test_an_ended_source_can_begin_again(run: Run, fds: list[int]) -> None:
    """Input that ended because the terminal was another job's goes on once it is ours."""

    async def main() -> None:
        master, slave = pty.openpty()
        os.set_blocking(master, False)
        fds.append(master)
        reader, sink = pipe(fds)
        os.close(slave)
        copying = Copying(master, sink)
        await asyncio.wait_for(copying.ended.wait(), 10)
        fds.append(hold_open(master))
        copying.pump.start()
        os.write(fds[-1], b"again")
        assert await take(reader, 5) == b"again"
        copying.pump.stop()

    run(main())


def test_draining_takes_all_that_was_written(run: Run, fds: list[int]) -> None:
    """With the terminal still held open by somebody, all that was written before the drain comes through."""

    async def main() -> None:
        master, slave = raw_pty(fds)
        reader, sink = pipe(fds)
        os.set_blocking(slave, False)
        written = fill(slave, os.urandom(1024))
        copying = Copying(master, sink)
        copying.pump.drain()
        assert len(await take(reader, written)) == written
        await asyncio.wait_for(copying.ended.wait(), 10)

    run(main())


def test_draining_ends_though_somebody_prints_on(run: Run, fds: list[int]) -> None:
    """A process left behind that writes without end cannot hold the drain."""

    async def main() -> None:
        master, slave = raw_pty(fds)
        null = os.open("/dev/null", os.O_WRONLY)
        fds.append(null)
        stop = threading.Event()

        def babble() -> None:
            os.set_blocking(slave, False)
            while not stop.is_set():
                fill(slave, b"y" * 512)

        thread = threading.Thread(target=babble)
        thread.start()
        copying = Copying(master, null)
        copying.pump.drain()
        try:
            await asyncio.wait_for(copying.ended.wait(), 20)
        finally:
            stop.set()
            thread.join()

    run(main())
    assert LEFT_BEHIND > 640 * 1024 + 4096  # tty_buffer.c and n_tty.c: more than a terminal can hold


def test_a_held_terminal_never_hangs_up(run: Run, fds: list[int]) -> None:
    """A program may close its terminal and open it again, as systemd does with the console."""

    async def main() -> None:
        master, slave = raw_pty(fds)
        name = os.ttyname(slave)
        fds.append(hold_open(master))
        reader, sink = pipe(fds)
        copying = Copying(master, sink)
        close(fds, slave)
        await asyncio.sleep(0.01)
        assert not copying.ended.is_set()
        again = os.open(name, os.O_RDWR | os.O_NOCTTY)
        fds.append(again)
        os.write(again, b"back")
        assert await take(reader, 4) == b"back"
        copying.pump.stop()

    run(main())


def test_a_stream_leaves_the_shared_file_blocking(fds: list[int]) -> None:
    """Our own reading without blocking is invisible to those who share the terminal or pipe."""
    _, slave = raw_pty(fds)
    reader, writer = os.pipe()
    fds.extend((reader, writer))
    for fd, flags in ((slave, os.O_RDWR), (reader, os.O_RDONLY), (writer, os.O_WRONLY)):
        stream = Stream(fd, flags)
        assert not os.get_blocking(stream.fd)
        assert os.get_blocking(fd)
        stream.close()
        assert stream.fd == -1


def test_a_stream_gives_back_a_socket_as_it_was(fds: list[int]) -> None:
    """A socket cannot be opened anew: it is made non-blocking, and blocking again afterwards."""
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = Stream(ours.fileno(), os.O_RDONLY)
        assert not os.get_blocking(ours.fileno())
        stream.close()
        assert os.get_blocking(ours.fileno())


def test_what_can_be_waited_for(fds: list[int], tmp_path: pathlib.Path) -> None:
    """Pipes and terminals can, files and /dev/null cannot."""
    _, slave = raw_pty(fds)
    reader, _ = pipe(fds)
    null = os.open("/dev/null", os.O_RDONLY)
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    fds.extend((null, file))
    assert [pollable(fd) for fd in (slave, reader, null, file)] == [True, True, False, False]

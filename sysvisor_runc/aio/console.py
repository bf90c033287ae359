"""A terminal's streams on the loop: bytes from one descriptor to another, with a bound and without losing one.

By add_reader and add_writer only: uvloop's connect_read_pipe aborts the process on a pseudo-terminal.
"""

from __future__ import annotations

import fcntl
import os
import select

from sysvisor_runc.child.console import TIOCGPTPEER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.aio.loop import AbstractEventLoop

# What one direction holds at most: reading goes on only when all of it has been written.
BOUND = 64 * 1024
# More than a pseudo-terminal can hold (640 KiB of flip buffers, 4 KiB in the line discipline): who keeps the other end
# open after the program's end and prints without end gets no further.
LEFT_BEHIND = 1024 * 1024


class Pump:
    """Copies `source` to `sink`, both non-blocking or never blocking (files), until one of them ends.

    Attributes:
        ended: called once all that `source` gave has been written; the source's end is an error or an empty read.
        broken: called when `sink` takes nothing any more.
    """

    __slots__ = (
        "_draining",
        "_left",
        "_loop",
        "_over",
        "_pending",
        "_polled",
        "_reading",
        "_sink",
        "_source",
        "_watched",
        "_writing",
        "broken",
        "ended",
    )

    def __init__(
        self,
        loop: AbstractEventLoop,
        source: int,
        sink: int,
        *,
        ended: Callable[[], None],
        broken: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._source = source
        self._sink = sink
        self.ended = ended
        self.broken = broken
        self._polled = pollable(source)
        self._pending = memoryview(b"")
        # _reading: a turn to read is due, by the loop watching the source (_watched) or asked for by ourselves.
        self._reading = self._watched = self._writing = False
        self._over = self._draining = False
        self._left = LEFT_BEHIND

    def start(self) -> None:
        """Begin, or begin again after the source's end: a terminal that we lost may be ours again."""
        self._over = False
        if not self._pending:
            self._await_source()

    def drain(self) -> None:
        """Take what is there already as all that there is: reading that would have to wait is the end now.

        Nothing that was written before is missed: a read of a terminal's master pushes what is underway through first
        (n_tty_read flushes the buffers before it says EAGAIN).
        """
        self._draining = True
        if self._reading:
            self._pause()
            self._await_source()

    def stop(self) -> None:
        """Leave both descriptors alone; what was pending is dropped."""
        self._pause()
        if self._writing:
            self._loop.remove_writer(self._sink)
            self._writing = False
        self._pending = memoryview(b"")

    def _await_source(self) -> None:
        if self._reading:
            return
        self._reading = True
        if self._polled and not self._draining:
            self._loop.add_reader(self._source, self._read)
            self._watched = True
        else:
            self._loop.call_soon(self._read)

    def _pause(self) -> None:
        self._reading = False
        if self._watched:
            self._loop.remove_reader(self._source)
            self._watched = False

    def _read(self) -> None:
        if not self._reading:
            return  # a turn asked for before a pause
        data = self._gather()
        if not self._watched or self._over:
            self._pause()
        if data:
            self._pending = memoryview(data)
            self._write()
        elif self._over:
            self.ended()
        else:
            self._await_source()

    def _gather(self) -> bytes:
        """All that can be read now, up to the bound; a terminal gives 4 KiB at a time, together they cost one write."""
        parts: list[bytes] = []
        room = min(BOUND, self._left)
        while room > 0 and not self._over:
            try:
                part = os.read(self._source, room)
            except BlockingIOError:
                self._over = self._draining
                break
            except OSError:  # EIO: a terminal's other end is closed, or we are in its background
                part = b""
            self._over = not part
            parts.append(part)
            room -= len(part)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        if self._draining:
            self._left -= len(data)
            self._over = self._over or not self._left
        return data

    def _write(self) -> None:
        try:
            self._pending = self._pending[os.write(self._sink, self._pending) :]
        except BlockingIOError:
            pass
        except OSError:
            self.stop()
            self.broken()
            return
        if self._pending:
            self._pause()
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._sink, self._write)
            return
        if self._writing:
            self._loop.remove_writer(self._sink)
            self._writing = False
        if self._over:
            self.ended()
        else:
            self._await_source()


class Stream:
    """One of our standard streams as `fd`, non-blocking, but not for those who share it with us.

    O_NONBLOCK belongs to the open file, and a terminal is one open file for the whole session: set on it, it would
    break the caller's shell if we were killed. So the stream is opened anew where that is possible.
    """

    __slots__ = ("_was_blocking", "fd")

    def __init__(self, number: int, flags: int) -> None:
        self._was_blocking = False
        if pollable(number):
            try:
                self.fd = os.open(f"/proc/self/fd/{number}", flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
                return
            except OSError:
                pass  # a socket, or a terminal of somebody else's after su(1)
        self.fd = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)
        if pollable(number):
            self._was_blocking = os.get_blocking(self.fd)
            os.set_blocking(self.fd, False)

    def close(self) -> None:
        """Close it, and leave the shared open file as it was found."""
        if self.fd >= 0:
            if self._was_blocking:
                os.set_blocking(self.fd, True)
            os.close(self.fd)
            self.fd = -1


def pollable(fd: int) -> bool:
    """Whether readiness can be waited for; a file or /dev/null never lets one wait, and epoll(7) refuses it."""
    with select.epoll() as epoll:
        try:
            epoll.register(fd, 0)
        except PermissionError:
            return False
    return True


def hung_up(terminal: int) -> bool:
    """Whether the other end of a terminal is gone for good: its window closed, its connection lost."""
    poll = select.poll()
    poll.register(terminal, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def hold_open(master: int) -> int:
    """The terminal's other end, held so that the master never reads as hung up; -1 on kernels without TIOCGPTPEER.

    A system container's init closes the console and opens it again as it goes: in between there is nobody on the other
    end, which must not be taken for the end of the output. The end is the program's end, which the pidfd tells.
    """
    try:
        return fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return -1

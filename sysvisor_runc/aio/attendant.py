"""Attends one program on a terminal: feeds the sources' events to `step` and performs the actions. No policy."""

from __future__ import annotations

import os

from sysvisor_runc.aio.console import Pump, Stream, hold_open, hung_up
from sysvisor_runc.aio.loop import asyncio
from sysvisor_runc.aio.process import ExitSource, exit_code
from sysvisor_runc.aio.signals import SignalSource
from sysvisor_runc.aio.step import (
    Drain,
    Exited,
    Finish,
    Forward,
    HangUp,
    OutputBroken,
    OutputEnded,
    ReapOrphans,
    Resize,
    Resume,
    Signalled,
    State,
    step,
)
from sysvisor_runc.launch.foreground import reap_orphans
from sysvisor_runc.launch.terminal import copy_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.aio.step import Action, Event
    from sysvisor_runc.launch.child import Child
    from sysvisor_runc.launch.notify import Proxy
    from sysvisor_runc.launch.terminal import CallerTerminal

# What an unknown exit code is told as: the process had been reaped by somebody else.
_UNKNOWN = 255


async def attend(
    child: Child, console: int, signal_fd: int, terminal: CallerTerminal, proxy: Proxy | None = None
) -> int:
    """The exit code of `child` once it has ended and all its output is written; closes `console` and `signal_fd`."""
    attendant = _Attendant(child, console, signal_fd, terminal)
    messages = None if proxy is None else _Messages(proxy)
    try:
        return await attendant.finished
    finally:
        attendant.close()
        if messages is not None:
            messages.close()


class _Messages:
    """The container's messages to the service manager, passed on as they come."""

    def __init__(self, proxy: Proxy) -> None:
        self._loop = asyncio.get_running_loop()
        self._proxy = proxy
        self._timer: asyncio.TimerHandle | None = None
        self._watch()

    def _watch(self) -> None:
        self._timer = None
        self._loop.add_reader(self._proxy.fileno(), self._readable)

    def _readable(self) -> None:
        pause = self._proxy.pass_on()
        if pause:
            self._loop.remove_reader(self._proxy.fileno())
            self._timer = self._loop.call_later(pause, self._watch)

    def close(self) -> None:
        """Pass on the last ones, and stop."""
        self._loop.remove_reader(self._proxy.fileno())
        if self._timer is not None:
            self._timer.cancel()
        self._proxy.pass_on()


class _Attendant:
    """The sources of one attended program, and the state that their events have led to."""

    def __init__(self, child: Child, console: int, signal_fd: int, terminal: CallerTerminal) -> None:
        loop = asyncio.get_running_loop()
        self.finished: asyncio.Future[int] = loop.create_future()
        self._child = child
        self._console = console
        self._terminal = terminal
        self._state = State()
        self._peer = hold_open(console)
        os.set_blocking(console, False)
        self._stdin = Stream(0, os.O_RDONLY)
        self._stdout = Stream(1, os.O_WRONLY)
        self._signals = SignalSource(loop, signal_fd, lambda number: self._happened(Signalled(number)))
        self._exit = ExitSource(loop, child.pidfd, self._child_ended)
        self._output = Pump(
            loop,
            console,
            self._stdout.fd,
            ended=lambda: self._happened(OutputEnded()),
            broken=lambda: self._happened(OutputBroken()),
        )
        self._typed = os.isatty(0)
        self._input = Pump(loop, self._stdin.fd, console, ended=self._input_ended, broken=_nothing)
        self._output.start()
        self._input.start()

    def close(self) -> None:
        """Stop everything and give the descriptors back."""
        self._exit.close()
        self._signals.close()
        self._hang_up()
        self._stdin.close()
        self._stdout.close()

    def _child_ended(self) -> None:
        code = exit_code(self._child.pidfd)
        self._happened(Exited(_UNKNOWN if code is None else code))

    def _input_ended(self) -> None:
        """The end of our input ends nothing, as with runc: a terminal has no half-close. A hang-up is passed on."""
        if self._typed and hung_up(self._stdin.fd):
            self._happened(OutputBroken())

    def _happened(self, event: Event) -> None:
        self._state, actions = step(self._state, event)
        for action in actions:
            self._perform(action)

    def _perform(self, action: Action) -> None:
        match action:
            case Forward(number):
                self._child.forward(number)
            case Resize():
                if self._console >= 0:
                    copy_size(self._terminal.fd, self._console)
            case Resume():
                self._terminal.take()
                if self._console >= 0:
                    self._input.start()
            case ReapOrphans():
                reap_orphans(self._child)
            case Drain():
                self._output.drain()
            case HangUp():
                self._hang_up()
            case Finish(code):
                if not self.finished.done():
                    self.finished.set_result(code)

    def _hang_up(self) -> None:
        self._input.stop()
        self._output.stop()
        for fd in (self._console, self._peer):
            if fd >= 0:
                os.close(fd)
        self._console = self._peer = -1


def _nothing() -> None:
    pass

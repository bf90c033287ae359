"""Turn the signals that end a command into an exception, so that a launch cut short is undone."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of signal has no stub

from sysvisor_runc.errors import SysvisorError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    Handler = Callable[[int, FrameType | None], object] | int | None

_ENDING = (1, 2, 3, 15)  # SIGHUP, SIGINT, SIGQUIT, SIGTERM


class Interrupted(SysvisorError):
    """A signal asked the command to end; the exit code is the shell's, 128+n."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by signal {number}", exit_code=128 + number)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


class interruptible:
    """While inside, SIGHUP, SIGINT, SIGQUIT and SIGTERM raise Interrupted; ignored ones stay ignored (nohup(1))."""

    __slots__ = ("_before",)

    def __init__(self) -> None:
        self._before: dict[int, Handler] = {}

    def __enter__(self) -> None:
        for number in _ENDING:
            handler = _signal.getsignal(number)
            if handler != _signal.SIG_IGN:
                self._before[number] = handler
                _signal.signal(number, _raise)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            _signal.signal(number, handler)

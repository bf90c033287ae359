"""Turn the signals that end a command into an exception, so that a launch cut short is undone."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of signal has no stub

from sysvisor_runc.errors import SysvisorError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

ENDING = {1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 15: "SIGTERM"}


class Interrupted(SysvisorError):
    """A signal asked the command to end; the exit code is the shell's, 128+n."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {ENDING[number]}", exit_code=128 + number)


def _raise(number: int, frame: FrameType | None) -> None:
    # A second one must not cut the undoing short.
    _signal.pthread_sigmask(_signal.SIG_BLOCK, ENDING)
    raise Interrupted(number)


def hold_back() -> None:
    """From here on SIGHUP, SIGINT, SIGQUIT and SIGTERM raise Interrupted, but only inside `waiting`.

    Elsewhere they are held back, so that none can hit between something being acquired and being noted for undoing.
    Ignored ones stay ignored (nohup(1)).
    """
    _signal.pthread_sigmask(_signal.SIG_BLOCK, ENDING)
    for number in ENDING:
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, _raise)


class waiting:
    """While inside, signals are let through: for where a launch waits for others, and has noted all that it took."""

    __slots__ = ("_before",)

    def __init__(self) -> None:
        self._before: set[int] = set()

    def __enter__(self) -> None:
        self._before = _signal.pthread_sigmask(_signal.SIG_UNBLOCK, ENDING)

    def __exit__(self, *_: object) -> None:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self._before)


def check() -> None:
    """Raise Interrupted if a signal has been held back."""
    with waiting():
        pass

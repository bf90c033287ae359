"""What a command in the foreground does about an event: a pure function. No I/O, no asyncio.

    running  --Exited-------> draining   what the program wrote last is still on its way
    running  --OutputBroken-> deaf       nobody reads us: the terminal is hung up, and the program decides
    draining --OutputEnded, OutputBroken, a signal that ends--> finished
    deaf     --Exited-------> finished

Signals are forwarded as runc does, all but those about our terminal and our children.
"""

from __future__ import annotations

from typing import NamedTuple

SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM, SIGCHLD, SIGCONT, SIGURG, SIGWINCH = 1, 2, 3, 13, 15, 17, 18, 23, 28
# Ours, or nobody's business in the container (SIGURG: as runc, whose own runtime sends it).
_KEPT = frozenset((SIGPIPE, SIGURG))
_ENDING = frozenset((SIGHUP, SIGINT, SIGQUIT, SIGTERM))


class State(NamedTuple):
    """`code`: the program's exit code once it has ended; `output`: the copying of its output goes on."""

    code: int | None = None
    output: bool = True


class Signalled(NamedTuple):
    """We got this signal."""

    number: int


class Exited(NamedTuple):
    """The program has ended."""

    code: int


class OutputEnded(NamedTuple):
    """All output has been read and written out."""


class OutputBroken(NamedTuple):
    """Nobody reads our output any more."""


class Forward(NamedTuple):
    """Send the program this signal."""

    number: int


class Resize(NamedTuple):
    """Give the container's terminal the size of ours."""


class Resume(NamedTuple):
    """We are back in the foreground: make the terminal raw, read from it."""


class ReapOrphans(NamedTuple):
    """Wait for what came to us as a subreaper."""


class Drain(NamedTuple):
    """Read what is left of the output, then say OutputEnded."""


class HangUp(NamedTuple):
    """Close the container's terminal."""


class Finish(NamedTuple):
    """Leave with this exit code."""

    code: int


Event = Signalled | Exited | OutputEnded | OutputBroken
Action = Forward | Resize | Resume | ReapOrphans | Drain | HangUp | Finish


def step(state: State, event: Event) -> tuple[State, tuple[Action, ...]]:
    """The state after `event`, and what to do about it, in order."""
    if isinstance(event, Signalled):
        return state, _on_signal(state, event.number)
    if isinstance(event, Exited):
        return state._replace(code=event.code), (Drain() if state.output else Finish(event.code),)
    if not state.output:
        return state, ()
    state = state._replace(output=False)
    if state.code is not None:
        return state, (Finish(state.code),)
    return state, (HangUp(),) if isinstance(event, OutputBroken) else ()


def _on_signal(state: State, number: int) -> tuple[Action, ...]:
    if number in _KEPT:
        return ()
    if number == SIGCHLD:
        return (ReapOrphans(),)
    if number == SIGWINCH:
        return (Resize(),)
    if state.code is not None:
        # Nobody is left to forward to; whoever wants us to end need not wait for a reader that does not read.
        return (Finish(state.code),) if number in _ENDING else ()
    if number == SIGCONT:
        return (Resume(), Resize(), Forward(number))
    return (Forward(number),)

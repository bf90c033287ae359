"""What a foreground command does about each event, in every state."""

import subprocess
import sys

import pytest

from sysvisor_runc.aio.step import (
    SIGCHLD,
    SIGCONT,
    SIGHUP,
    SIGINT,
    SIGPIPE,
    SIGTERM,
    SIGURG,
    SIGWINCH,
    Action,
    Drain,
    Event,
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

RUNNING = State()
DRAINING = State(code=7)
DEAF = State(output=False)
FINISHED = State(code=7, output=False)
SIGUSR1, SIGTSTP, SIGRTMIN = 10, 20, 34


@pytest.mark.parametrize("number", [SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGTSTP, SIGRTMIN])
@pytest.mark.parametrize("state", [RUNNING, DEAF])
def test_signals_go_to_a_running_program(state: State, number: int) -> None:
    """While the program runs a signal is its business, and changes nothing for us."""
    assert step(state, Signalled(number)) == (state, (Forward(number),))


@pytest.mark.parametrize("state", [RUNNING, DRAINING, DEAF, FINISHED])
@pytest.mark.parametrize(
    ("number", "actions"),
    [(SIGPIPE, ()), (SIGURG, ()), (SIGCHLD, (ReapOrphans(),)), (SIGWINCH, (Resize(),))],
)
def test_signals_about_ourselves_are_never_forwarded(state: State, number: int, actions: tuple[Action, ...]) -> None:
    """A resized terminal, an ended child and a broken pipe are ours in every state."""
    assert step(state, Signalled(number)) == (state, actions)


def test_coming_back_to_the_foreground_takes_the_terminal_again() -> None:
    """After SIGCONT the terminal is raw and sized again, and then the program continues too."""
    assert step(RUNNING, Signalled(SIGCONT)) == (RUNNING, (Resume(), Resize(), Forward(SIGCONT)))


@pytest.mark.parametrize("number", [SIGHUP, SIGINT, SIGTERM])
def test_a_signal_ends_the_wait_for_a_reader(number: int) -> None:
    """Once the program has ended, a signal that ends processes ends us too, with the program's code."""
    assert step(DRAINING, Signalled(number)) == (DRAINING, (Finish(7),))


@pytest.mark.parametrize("number", [SIGUSR1, SIGCONT, SIGTSTP])
def test_other_signals_have_nowhere_to_go_after_the_end(number: int) -> None:
    """Once the program has ended, a signal that ends nothing does nothing."""
    assert step(DRAINING, Signalled(number)) == (DRAINING, ())


@pytest.mark.parametrize(
    ("state", "event", "after", "actions"),
    [
        (RUNNING, Exited(7), DRAINING, (Drain(),)),
        (RUNNING, OutputEnded(), DEAF, ()),
        (RUNNING, OutputBroken(), DEAF, (HangUp(),)),
        (DEAF, Exited(7), FINISHED, (Finish(7),)),
        (DEAF, OutputEnded(), DEAF, ()),
        (DEAF, OutputBroken(), DEAF, ()),
        (DRAINING, OutputEnded(), FINISHED, (Finish(7),)),
        (DRAINING, OutputBroken(), FINISHED, (Finish(7),)),
        (FINISHED, OutputEnded(), FINISHED, ()),
        (FINISHED, OutputBroken(), FINISHED, ()),
    ],
)
def test_every_other_transition(state: State, event: Event, after: State, actions: tuple[Action, ...]) -> None:
    """The whole table: output is finished before the command is, unless nobody reads it."""
    assert step(state, event) == (after, actions)


def test_the_decision_needs_no_loop() -> None:
    """The pure part can be used and tested without asyncio."""
    script = "import sys; import sysvisor_runc.aio.step; print('asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr

"""What the supervisor does about a container's end: a pure function. No I/O, no clock, no asyncio.

    running  --Ended---------> waiting   a restart is due after the back-off
    running  --Ended---------> ended     how it ended is not known yet, and may decide
    running  --Ended---------> over      the policy wants no restart, or somebody asked for the end
    ended    --Told----------> waiting, over
    waiting  --Elapsed-------> starting, over if somebody has asked for the end meanwhile
    starting --Started-------> running
    starting --Elapsed-------> over      somebody has asked for the end meanwhile
    starting --Failed--------> waiting, over
    any      --Started-------> running   somebody else has started it; Removed: it is forgotten

The back-off is Docker's: the delay doubles with each restart up to a minute, and begins anew once the container has run
for ten seconds; the count of restarts does not.
"""

from __future__ import annotations

from typing import NamedTuple

DELAY_MIN = 0.1
DELAY_MAX = 60.0
# Who has run for so long has started well.
SETTLED = 10.0
# How long the code of somebody else's child may take: it exists once that has been reaped.
CODE_PATIENCE = 1.0

RUNNING, ENDED, WAITING, STARTING, OVER = "running", "ended", "waiting", "starting", "over"


class Policy(NamedTuple):
    """`name` is no, on-failure, always or unless-stopped; `retries`: of on-failure, 0 for any; `delay`: the first."""

    name: str = "no"
    retries: int = 0
    delay: float = DELAY_MIN


class Outcome(NamedTuple):
    """How a container ended: its exit code, 128+n where a signal did it; None where nobody knows."""

    code: int | None = None
    signal: int | None = None
    oom: bool = False


class State(NamedTuple):
    """One container.

    Attributes:
        policy: when it is started again.
        phase: see above.
        times: how often it has been started again.
        delay: the last back-off; 0: none since it has settled.
        since: when its init began, in seconds of a clock that never jumps.
        stopped: somebody has asked for its end.
    """

    policy: Policy = Policy()
    phase: str = RUNNING
    times: int = 0
    delay: float = 0.0
    since: float = 0.0
    stopped: bool = False


class Ended(NamedTuple):
    """Init has ended, at `at`; `outcome` is None where it is yet to come; `stopped`: somebody asked for it."""

    at: float
    outcome: Outcome | None
    stopped: bool = False


class Told(NamedTuple):
    """How it ended, or that nobody will ever know."""

    outcome: Outcome


class Elapsed(NamedTuple):
    """The back-off is over."""

    stopped: bool = False


class Started(NamedTuple):
    """Its init runs (again)."""

    at: float


class Failed(NamedTuple):
    """It could not be started again."""

    why: str


class Removed(NamedTuple):
    """It has been deleted."""


class Note(NamedTuple):
    """Store what is known of it."""

    outcome: Outcome | None = None


class Publish(NamedTuple):
    """Tell the readers of events."""

    kind: str
    data: dict[str, object]


class AwaitCode(NamedTuple):
    """Say Told once the code is there, after `patience` at the latest."""

    patience: float


class Arm(NamedTuple):
    """Say Elapsed after `delay`."""

    delay: float


class Launch(NamedTuple):
    """Start it again; say Started or Failed."""


class Disarm(NamedTuple):
    """No Elapsed any more."""


class Forget(NamedTuple):
    """There is nothing left to look after."""


Event = Ended | Told | Elapsed | Started | Failed | Removed
Action = Note | Publish | AwaitCode | Arm | Launch | Disarm | Forget
Next = tuple[State, tuple[Action, ...]]


def step(state: State, event: Event) -> Next:
    """The state after `event`, and what to do about it, in order. What cannot happen in a phase changes nothing."""
    if isinstance(event, Removed):
        return state._replace(phase=OVER), (Disarm(), Forget())
    if isinstance(event, Started):
        return _started(state, event.at)
    if isinstance(event, Ended):
        return _ended(state, event) if state.phase == RUNNING else (state, ())
    if isinstance(event, Told):
        return _settled(state, event.outcome, told=True) if state.phase == ENDED else (state, ())
    if isinstance(event, Elapsed):
        return _elapsed(state, stopped=event.stopped)
    return _failed(state, event.why) if state.phase == STARTING else (state, ())


def restarts(state: State, outcome: Outcome | None) -> bool:
    """Whether the policy wants it again; of an unknown end (None: not yet known) what is to be feared is assumed."""
    policy = state.policy
    if state.stopped or policy.name == "no":
        return False
    if policy.name != "on-failure":
        return True
    if policy.retries and state.times >= policy.retries:
        return False
    return outcome is None or outcome.code != 0


def _started(state: State, at: float) -> Next:
    again = state.phase in (WAITING, STARTING)
    state = state._replace(phase=RUNNING, since=at, times=state.times + again, stopped=False)
    events = (Publish("restart", {"count": state.times}),) if again else ()
    return state, (Disarm(), Note(), *events)


def _ended(state: State, event: Ended) -> Next:
    settled = event.at - state.since >= SETTLED
    state = state._replace(stopped=event.stopped, delay=0.0 if settled else state.delay)
    if event.outcome is not None:
        return _settled(state, event.outcome, told=False)
    data: dict[str, object] = {"code": None, "pending": True, "restarting": restarts(state, None)}
    return state._replace(phase=ENDED), (Publish("exit", data), AwaitCode(CODE_PATIENCE))


def _settled(state: State, outcome: Outcome, *, told: bool) -> Next:
    again = restarts(state, outcome)
    data: dict[str, object] = {"code": outcome.code, "restarting": again}
    if outcome.signal is not None:
        data["signal"] = outcome.signal
    if outcome.oom:
        data["oom"] = True
    if told:
        data["completes"] = True
    if not again:
        return state._replace(phase=OVER), (Publish("exit", data), Note(outcome), Forget())
    state = _backed_off(state)
    return state, (Publish("exit", data), Note(outcome), Arm(state.delay))


def _backed_off(state: State) -> State:
    first = max(state.policy.delay, 0.0)
    delay = state.delay * 2 if state.delay else first
    return state._replace(phase=WAITING, delay=min(delay, max(DELAY_MAX, first)) or DELAY_MIN)


def _elapsed(state: State, *, stopped: bool) -> Next:
    if stopped and state.phase in (WAITING, STARTING):
        return state._replace(phase=OVER, stopped=True), (Note(), Forget())
    return (state._replace(phase=STARTING), (Launch(),)) if state.phase == WAITING else (state, ())


def _failed(state: State, why: str) -> Next:
    """A start that fails is a restart that came to nothing: it counts, and the next one comes later."""
    state = state._replace(times=state.times + 1)
    again = restarts(state, Outcome())
    event = Publish("health", {"status": "restart failed", "error": why, "restarting": again})
    if not again:
        return state._replace(phase=OVER), (Note(), event, Forget())
    state = _backed_off(state)
    return state, (Note(), event, Arm(state.delay))

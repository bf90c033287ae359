"""What the supervisor does about an end: every event in every phase, and the back-off."""

import itertools

import pytest

from sysvisor_runc.supervise import (
    DELAY_MAX,
    ENDED,
    OVER,
    RUNNING,
    SETTLED,
    STARTING,
    WAITING,
    Action,
    Arm,
    AwaitCode,
    Disarm,
    Elapsed,
    Ended,
    Event,
    Failed,
    Forget,
    Launch,
    Note,
    Outcome,
    Policy,
    Publish,
    Removed,
    Started,
    State,
    Told,
    restarts,
    step,
)

PHASES = (RUNNING, ENDED, WAITING, STARTING, OVER)
POLICIES = (Policy(), Policy("on-failure"), Policy("on-failure", 2), Policy("always"), Policy("unless-stopped"))
GOOD, BAD, KILLED, UNKNOWN = Outcome(0), Outcome(3), Outcome(137, 9, oom=True), Outcome()
EVENTS: tuple[Event, ...] = (
    *(Ended(5.0, outcome, stopped) for outcome in (None, GOOD, BAD, KILLED, UNKNOWN) for stopped in (False, True)),
    *map(Told, (GOOD, BAD, KILLED, UNKNOWN)),
    Elapsed(),
    Elapsed(stopped=True),
    Started(7.0),
    Failed("no memory"),
    Removed(),
)
# In which phases an event means anything.
HEARD = {
    Ended: {RUNNING},
    Told: {ENDED},
    Elapsed: {WAITING, STARTING},
    Failed: {STARTING},
    Started: set(PHASES),
    Removed: set(PHASES),
}
EVERYTHING = [
    (State(policy, phase, times=times, delay=delay), event)
    for policy, phase, times, delay, event in itertools.product(POLICIES, PHASES, (0, 1, 2), (0.0, 0.4), EVENTS)
]


def kinds(actions: tuple[Action, ...]) -> list[str]:
    return [type(action).__name__ for action in actions]


def published(actions: tuple[Action, ...]) -> list[tuple[str, dict[str, object]]]:
    return [(action.kind, action.data) for action in actions if isinstance(action, Publish)]


def test_what_cannot_happen_changes_nothing() -> None:
    """An event in a phase that does not know it leaves the state as it is and asks for nothing."""
    for state, event in EVERYTHING:
        if state.phase not in HEARD[type(event)]:
            assert step(state, event) == (state, ())


def test_every_phase_has_its_way_on() -> None:
    """Whatever happens: who waits has a timer, who starts a launch, who is over is forgotten, who ended is asked."""
    for state, event in EVERYTHING:
        after, actions = step(state, event)
        if (after, actions) == (state, ()):
            continue
        names = kinds(actions)
        assert after.phase in PHASES
        assert ("Arm" in names) == (after.phase == WAITING), (state, event)
        assert ("Launch" in names) == (after.phase == STARTING), (state, event)
        assert ("Forget" in names) == (after.phase == OVER), (state, event)
        assert ("AwaitCode" in names) == (after.phase == ENDED), (state, event)
        if after.phase == OVER:
            assert names[-1] == "Forget"


def test_an_end_is_published_once_and_completed_once() -> None:
    """One `exit` event for each end, and one more that completes it where the code was pending."""
    for state, event in EVERYTHING:
        told = [data for kind, data in published(step(state, event)[1]) if kind == "exit"]
        heard = state.phase in HEARD[type(event)]
        assert len(told) == (heard and isinstance(event, Ended | Told))
        for data in told:
            assert data.get("pending", False) == (isinstance(event, Ended) and event.outcome is None)
            assert data.get("completes", False) == isinstance(event, Told)


def test_the_count_only_grows() -> None:
    """No event forgets how often a container was started again, or adds more than one."""
    for state, event in EVERYTHING:
        assert step(state, event)[0].times - state.times in (0, 1)


def test_an_event_says_whether_a_restart_follows() -> None:
    """`restarting` in an `exit` with its code is what then happens."""
    for state, event in EVERYTHING:
        after, actions = step(state, event)
        for kind, data in published(actions):
            if kind == "exit" and "pending" not in data:
                assert data["restarting"] == (after.phase == WAITING)


@pytest.mark.parametrize(
    ("policy", "outcome", "again"),
    [
        (Policy("no"), BAD, False),
        (Policy("always"), GOOD, True),
        (Policy("unless-stopped"), GOOD, True),
        (Policy("on-failure"), GOOD, False),
        (Policy("on-failure"), BAD, True),
        (Policy("on-failure"), KILLED, True),
        (Policy("on-failure"), UNKNOWN, True),
        (Policy("on-failure", 1), BAD, True),
    ],
)
def test_policies(policy: Policy, outcome: Outcome, again: bool) -> None:
    """Each policy says for each end whether the container is started again, and never where it was asked to end."""
    state = State(policy)
    assert step(state, Ended(1.0, outcome))[0].phase == (WAITING if again else OVER)
    assert step(state, Ended(1.0, outcome, stopped=True))[0].phase == OVER
    pending = step(state, Ended(1.0, None))[0]
    assert pending.phase == ENDED
    assert step(pending, Told(outcome))[0].phase == (WAITING if again else OVER)


def test_retries_are_counted() -> None:
    """`on-failure:N` starts the container again N times, however long it ran in between."""
    state = State(Policy("on-failure", 2))
    for number in (1, 2):
        state, _ = step(state, Ended(100.0 * number, BAD))
        state, _ = step(state, Elapsed())
        state, actions = step(state, Started(100.0 * number))
        assert published(actions) == [("restart", {"count": number})]
    assert not restarts(state, BAD)
    assert step(state, Ended(300.0, BAD))[0].phase == OVER


def cycle(state: State, began: float, ran: float) -> tuple[State, float]:
    """A run of `ran` seconds that fails; the state, and the delay before the next one."""
    state, _ = step(state, Started(began))
    state, actions = step(state, Ended(began + ran, BAD))
    return state, next(action.delay for action in actions if isinstance(action, Arm))


def test_the_back_off_doubles_up_to_a_minute() -> None:
    """100 ms, 200 ms, 400 ms … 60 s, and never more."""
    state, delays = State(Policy("always")), []
    for number in range(14):
        state, delay = cycle(state, number * 100.0, 1.0)
        state, _ = step(state, Elapsed())
        delays.append(delay)
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-3:] == [DELAY_MAX] * 3


def test_the_back_off_begins_anew_once_settled() -> None:
    """A container that has run for ten seconds has started well."""
    state = State(Policy("always"))
    for _ in range(5):
        state, _ = cycle(state, 0.0, 1.0)
        state, _ = step(state, Elapsed())
    state, delay = cycle(state, 100.0, SETTLED)
    assert delay == 0.1


@pytest.mark.parametrize(("given", "delays"), [(2.0, [2, 4, 8]), (90.0, [90, 90, 90]), (0.0, [0.1, 0.2, 0.4])])
def test_a_delay_of_ones_own(given: float, delays: list[float]) -> None:
    """--restart-delay is the first delay; longer than a minute it is the cap as well."""
    state, found = State(Policy("always", delay=given)), []
    for _ in delays:
        state, delay = cycle(state, 0.0, 0.1)
        state, _ = step(state, Elapsed())
        found.append(delay)
    assert found == delays


def test_a_failed_start_counts_and_comes_later() -> None:
    """What could not be started is tried again after the next back-off, as often as the policy allows."""
    state, _ = step(State(Policy("on-failure", 2)), Ended(1.0, BAD))
    state, actions = step(state, Elapsed())
    assert actions == (Launch(),)
    state, actions = step(state, Failed("why"))
    assert (state.phase, state.times, state.delay) == (WAITING, 1, 0.2)
    assert published(actions) == [("health", {"status": "restart failed", "error": "why", "restarting": True})]
    state, _ = step(state, Elapsed())
    state, actions = step(state, Failed("why"))
    assert state.phase == OVER
    assert kinds(actions) == ["Note", "Publish", "Forget"]


def test_asked_to_end_while_it_waits() -> None:
    """Who asks for the end during the back-off gets it."""
    state, _ = step(State(Policy("always")), Ended(1.0, BAD))
    assert step(state, Elapsed(stopped=True)) == (state._replace(phase=OVER, stopped=True), (Note(), Forget()))


def test_asked_to_end_while_it_starts() -> None:
    """Who asks for the end of a container that is being started gets it as well, if that start came to nothing."""
    state = State(Policy("always"), phase=STARTING)
    assert step(state, Elapsed()) == (state, ())
    assert step(state, Elapsed(stopped=True)) == (state._replace(phase=OVER, stopped=True), (Note(), Forget()))


def test_a_pending_code_is_waited_for() -> None:
    """An end without a code is published at once, and the code awaited for a second."""
    _, actions = step(State(), Ended(1.0, None))
    assert actions == (
        Publish("exit", {"code": None, "pending": True, "restarting": False}),
        AwaitCode(1.0),
    )


def test_a_removed_container_is_forgotten() -> None:
    """Whatever was due for it is not any more."""
    assert step(State(Policy("always"), WAITING), Removed())[1] == (Disarm(), Forget())


def test_an_oom_kill_is_told() -> None:
    """The event of an end has the signal, and the want of memory where that was it."""
    _, actions = step(State(), Ended(1.0, KILLED))
    assert published(actions) == [("exit", {"code": 137, "restarting": False, "signal": 9, "oom": True})]
    assert Note(KILLED) in actions

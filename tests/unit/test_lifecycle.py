"""The table of statuses: every event, every command, every combination of what can be observed."""

import itertools

import pytest

from sysvisor_runc.cli.table import COMMANDS
from sysvisor_runc.errors import StateError
from sysvisor_runc.state import lifecycle

STATUSES = ("creating", "created", "running", "paused", "stopped")
EVENTS = sorted({event for row in lifecycle.TRANSITIONS.values() for event in row})


def test_every_status_has_a_row() -> None:
    """The table speaks of exactly the statuses of the runtime specification and paused, and of none at all."""
    assert set(lifecycle.TRANSITIONS) == {None, *STATUSES}


@pytest.mark.parametrize("status", [None, *STATUSES])
def test_events_lead_to_known_statuses(status: str | None) -> None:
    """No event leads out of the table."""
    assert set(lifecycle.TRANSITIONS[status].values()) <= {None, *STATUSES}  # type: ignore[index]


@pytest.mark.parametrize(("status", "event"), list(itertools.product([None, *STATUSES], EVENTS)))
def test_what_is_not_in_the_table_is_refused(status: str | None, event: str) -> None:
    """An event either leads where the table says or raises, naming the event."""
    row = lifecycle.TRANSITIONS[status]  # type: ignore[index]
    if event in row:
        assert lifecycle.transition(status, event) == row[event]  # type: ignore[arg-type]
    else:
        with pytest.raises(StateError, match=event):
            lifecycle.transition(status, event)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", STATUSES)
def test_every_container_can_be_deleted_by_force(status: str) -> None:
    """There is no status that cannot be got rid of."""
    assert lifecycle.transition(status, "delete --force") is None  # type: ignore[arg-type]
    lifecycle.require("delete --force", status, "c")  # type: ignore[arg-type]


@pytest.mark.parametrize("status", ["creating", "created", "running", "paused"])
def test_an_init_may_die_in_any_status(status: str) -> None:
    """The kernel asks nobody before it kills."""
    assert lifecycle.transition(status, "exit") == "stopped"  # type: ignore[arg-type]


def test_refusals_name_commands_and_statuses() -> None:
    """Every command in the table of refusals exists, and every status in it."""
    assert {verb.split()[0] for verb in lifecycle.REFUSALS} <= set(COMMANDS)
    assert {status for row in lifecycle.REFUSALS.values() for status in row} <= set(STATUSES)


@pytest.mark.parametrize(
    ("verb", "allowed"),
    [
        ("start", {"created"}),
        ("exec", {"created", "running"}),
        ("kill", {"creating", "created", "running", "paused"}),
        ("pause", {"created", "running"}),
        ("resume", {"paused"}),
        ("update", {"created", "running", "paused"}),
        ("delete", {"created", "stopped"}),
        ("state", set(STATUSES)),
        ("ps", set(STATUSES)),
    ],
)
def test_where_a_command_may_act(verb: str, allowed: set[str]) -> None:
    """Which commands act in which status, as the specification and runc have it."""

    def acts(status: str) -> bool:
        try:
            lifecycle.require(verb, status, "c")  # type: ignore[arg-type]
        except StateError:
            return False
        return True

    assert {status for status in STATUSES if acts(status)} == allowed


@pytest.mark.parametrize(
    ("verb", "status", "words"),
    [
        ("kill", "stopped", "container not running"),
        ("resume", "running", "container not paused"),
        ("exec", "paused", "cannot exec in a paused container"),
        ("delete", "running", "cannot delete container c that is not stopped: running"),
    ],
)
def test_words_that_callers_look_for(verb: str, status: str, words: str) -> None:
    """runc's callers match these texts."""
    with pytest.raises(StateError, match=words):
        lifecycle.require(verb, status, "c")  # type: ignore[arg-type]


def expected(stored: str, alive: bool, waiting: bool, frozen: bool, busy: bool) -> str:
    """The status in words of the design, most telling fact first."""
    if stored == "creating":
        return "creating" if alive or busy else "stopped"
    if not alive:
        return "stopped"
    if frozen:
        return "paused"
    return "created" if waiting else "running"


@pytest.mark.parametrize("stored", ["creating", "created", "running"])
def test_status_of_every_observation(stored: str) -> None:
    """All 48 combinations of what is stored and what is seen have the status that the design says."""
    for alive, waiting, frozen, busy in itertools.product((False, True), repeat=4):
        found = lifecycle.status(stored, alive=alive, waiting=waiting, frozen=frozen, busy=busy)
        assert found == expected(stored, alive, waiting, frozen, busy)

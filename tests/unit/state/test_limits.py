"""Merging resource limits: what an update says is changed, and nothing else."""

import copy

import pytest

from sysvisor_runc.state.limits import complete, merged, touched

CURRENT: dict[str, object] = {
    "memory": {"limit": 32, "swap": 64, "reservation": 16},
    "cpu": {"shares": 100, "quota": 500, "period": 1000},
    "pids": {"limit": 20},
    "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}, {"major": 8, "minor": 0, "rate": 2}]},
    "unified": {"memory.high": "1", "io.weight": "2"},
    "devices": [{"allow": False}],
}


def update(change: dict[str, object]) -> dict[str, object]:
    """CURRENT with a completed change on top."""
    return merged(CURRENT, complete(change))  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("change", "section", "outcome"),
    [
        ({"cpu": {"period": 900}}, "cpu", {"shares": 100, "quota": 500, "period": 900}),
        ({"cpu": {"period": 0, "quota": 600}}, "cpu", {"shares": 100, "quota": 600, "period": 1000}),
        ({"cpu": {"quota": -1}}, "cpu", {"shares": 100, "quota": -1, "period": 1000}),
        ({"cpu": {"idle": 1}}, "cpu", {"shares": 0, "quota": 500, "period": 1000, "idle": 1}),
        ({"cpu": {"idle": 1, "shares": 5}}, "cpu", {"shares": 5, "quota": 500, "period": 1000, "idle": 1}),
        ({"cpu": {"burst": 0}}, "cpu", {"shares": 100, "quota": 500, "period": 1000, "burst": 0}),
        ({"pids": {"limit": 0}}, "pids", {"limit": 0}),
        ({"unified": {"io.weight": "3"}}, "unified", {"memory.high": "1", "io.weight": "3"}),
    ],
)
def test_one_section(change: dict[str, object], section: str, outcome: dict[str, object]) -> None:
    """Values that are not named stay, zeros that mean "not set" are not set, and idle groups lose their weight."""
    found = update(change)
    assert found[section] == outcome
    assert {key: found[key] for key in CURRENT if key != section} == {
        key: CURRENT[key] for key in CURRENT if key != section
    }


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({"limit": 40}, {"limit": 40, "swap": 64, "reservation": 16, "checkBeforeUpdate": False}),
        ({"limit": -1}, {"limit": -1, "swap": 0, "reservation": 16, "checkBeforeUpdate": False}),
        ({"limit": -1, "swap": -1}, {"limit": -1, "swap": -1, "reservation": 16, "checkBeforeUpdate": False}),
        (
            {"swap": 9, "checkBeforeUpdate": True},
            {"limit": 32, "swap": 9, "reservation": 16, "checkBeforeUpdate": True},
        ),
        ({"limit": 0, "swap": 0}, {"limit": 32, "swap": 64, "reservation": 16}),
        ({"kernel": 7, "kernelTCP": 7}, {"limit": 32, "swap": 64, "reservation": 16}),
    ],
)
def test_memory(change: dict[str, object], outcome: dict[str, object]) -> None:
    """Lifting the limit lifts that on swap, a check is asked for each time, kernel memory is no more."""
    assert update({"memory": change})["memory"] == outcome


def test_devices_are_updated_one_by_one() -> None:
    """The last element about a device gets the new value, and a new device is added."""
    change = {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}, {"major": 8, "minor": 16, "rate": 5}]}
    assert update({"blockIO": change})["blockIO"] == {
        "throttleReadBpsDevice": [
            {"major": 8, "minor": 0, "rate": 1},
            {"major": 8, "minor": 0, "rate": 9},
            {"major": 8, "minor": 16, "rate": 5},
        ]
    }


def test_a_device_weight_keeps_its_other_half() -> None:
    """Weight and leaf weight of one device are two values."""
    current = {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 1, "leafWeight": 2}]}}
    change = {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 7}]}}
    found = merged(current, complete(change))  # type: ignore[arg-type]
    assert found == {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 7, "leafWeight": 2}]}}


def test_device_rules_are_not_updated() -> None:
    """What a plug-in has allowed beyond them would be lost."""
    assert update({"devices": [{"allow": True}]}) == CURRENT


def test_nothing_is_modified_in_place() -> None:
    """The old limits are still there to be set back."""
    before = copy.deepcopy(CURRENT)
    change = {"cpu": {"idle": 1}, "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}]}}
    given = copy.deepcopy(change)
    update(change)
    assert before == CURRENT
    assert given == change


def test_an_empty_change_touches_nothing() -> None:
    """No limit is written again for it."""
    change = complete({"cpu": {"quota": 0, "cpus": ""}, "memory": {}, "pids": {}})
    assert change == {}
    assert touched(merged(CURRENT, change), change) == {}  # type: ignore[arg-type]


def test_whole_sections_are_written_but_only_new_unified_values() -> None:
    """A period needs its quota beside it; a unified file may have been set by a section since."""
    change = complete({"cpu": {"period": 900}, "unified": {"io.weight": "3"}})
    assert touched(merged(CURRENT, change), change) == {  # type: ignore[arg-type]
        "cpu": {"shares": 100, "quota": 500, "period": 900},
        "unified": {"io.weight": "3"},
    }

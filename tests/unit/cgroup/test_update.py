"""Merging an update into what the container has."""

from sysvisor_runc.cgroup.update import to_apply, to_store
from sysvisor_runc.spec.types import LinuxResources

STORED: LinuxResources = {
    "cpu": {"quota": 500000, "period": 1000000, "shares": 100},
    "memory": {"limit": 100, "swap": 150},
    "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}, {"major": 8, "minor": 16, "rate": 2}]},
}


def test_period_keeps_its_quota() -> None:
    """A new period alone is written with the quota that was there, and nothing else of cpu is."""
    assert to_apply(STORED, {"cpu": {"period": 900000}}) == {"cpu": {"quota": 500000, "period": 900000}}


def test_memory_goes_with_swap() -> None:
    """Memory and memory+swap are judged together, whichever of them is new."""
    assert to_apply(STORED, {"memory": {"limit": 120}}) == {"memory": {"limit": 120, "swap": 150}}
    assert to_apply(STORED, {"memory": {"swap": 200}}) == {"memory": {"limit": 100, "swap": 200}}
    assert to_apply(STORED, {"memory": {"limit": -1}}) == {"memory": {"limit": -1}}


def test_untouched_values_are_not_written() -> None:
    """An update of pids writes pids."""
    assert to_apply(STORED, {"pids": {"limit": 5}}) == {"pids": {"limit": 5}}


def test_store_replaces_by_device() -> None:
    """A device's new rate replaces its old one; others stay; arguments are left alone."""
    stored = to_store(STORED, {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}]}})
    assert stored["blockIO"]["throttleReadBpsDevice"] == [
        {"major": 8, "minor": 16, "rate": 2},
        {"major": 8, "minor": 0, "rate": 9},
    ]
    assert stored["cpu"] == STORED["cpu"]
    assert STORED["blockIO"]["throttleReadBpsDevice"][0]["rate"] == 1


def test_store_forgets_swap_when_memory_is_unlimited() -> None:
    """Lifting the memory limit lifts the one with swap, so the next update must not bring it back."""
    assert to_store(STORED, {"memory": {"limit": -1}})["memory"] == {"limit": -1, "swap": 0}

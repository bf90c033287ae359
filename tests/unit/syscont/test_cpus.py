"""`--cpuset-from-quota`: as many CPUs as the quota is worth."""

from typing import Any

import pytest

from sysvisor_runc.syscont.convert import convert
from tests.unit.syscont import sample


def cpus(resources: dict[str, Any], *, asked: bool = True, name: str = "web", there: int = 8) -> str:
    """The cpuset after the conversion, "" for none."""
    spec = sample.spec()
    spec["linux"]["resources"] = resources  # type: ignore[typeddict-item]  # as a test writes it
    if asked:
        spec["annotations"] = {"org.sysvisor.cpuset-from-quota": "true"}
    facts = sample.facts(container_id=name)
    facts.cpus = tuple(range(there))
    converted, _ = convert(spec, facts)
    return converted["linux"].get("resources", {}).get("cpu", {}).get("cpus") or ""


@pytest.mark.parametrize(
    ("cpu", "count"),
    [({"quota": 150_000, "period": 100_000}, 2), ({"quota": 50_000}, 1), ({"quota": 300_000}, 3)],
)
def test_quota_rounded_up(cpu: dict[str, int], count: int) -> None:
    """One and a half CPUs are two, with the kernel's period where none is given."""
    assert len(cpus({"cpu": cpu}).split(",")) == count


def test_quota_of_cgroup2() -> None:
    """A quota may come as cpu.max."""
    assert len(cpus({"unified": {"cpu.max": "250000 100000"}}).split(",")) == 3
    assert cpus({"unified": {"cpu.max": "max 100000"}}) == ""


def test_only_of_what_is_allowed() -> None:
    """A cpuset in the spec is narrowed, never widened."""
    assert set(cpus({"cpu": {"quota": 200_000, "cpus": "5-7"}}).split(",")) < {"5", "6", "7"}
    assert cpus({"cpu": {"quota": 900_000, "cpus": "5-7"}}) == "5-7"


@pytest.mark.parametrize("resources", [{}, {"cpu": {"quota": -1}}, {"cpu": {"quota": 800_000}}])
def test_nothing_to_narrow(resources: dict[str, Any]) -> None:
    """Without a quota, or with one worth all CPUs, nothing is set."""
    assert cpus(resources) == ""


def test_only_if_asked() -> None:
    """By default a quota leaves the CPUs alone."""
    assert cpus({"cpu": {"quota": 100_000}}, asked=False) == ""


def test_containers_spread() -> None:
    """Not all containers get the same CPUs."""
    assert len({cpus({"cpu": {"quota": 100_000}}, name=f"c{number}") for number in range(32)}) > 4

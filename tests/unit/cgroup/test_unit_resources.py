"""linux.resources as properties of a systemd unit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysvisor_runc.cgroup.devices import Devices
from sysvisor_runc.cgroup.unit_resources import INFINITY, bits, convert, device_policy, rounded, unset
from sysvisor_runc.errors import SpecError
from sysvisor_runc.spec.types import DeviceCgroup, LinuxResources

DENY_ALL: DeviceCgroup = {"allow": False, "access": "rwm"}


def properties(resources: LinuxResources, *, v2: bool = True, version: int = 252) -> dict[str, object]:
    """Name to value; types are looked at elsewhere."""
    found = convert(resources, v2=v2, version=lambda: version, devices=False)
    assert len({name for name, _ in found}) == len(found)
    return {name: value for name, (_, value) in found}


def never() -> int:
    raise AssertionError("the version was asked for")


@pytest.mark.parametrize(
    ("resources", "v2", "v1"),
    [
        ({"memory": {"limit": 10}}, {"MemoryMax": 10}, {"MemoryLimit": 10}),
        ({"memory": {"limit": -1}}, {"MemoryMax": INFINITY, "MemorySwapMax": INFINITY}, {"MemoryLimit": INFINITY}),
        ({"memory": {"limit": 10, "swap": 30}}, {"MemoryMax": 10, "MemorySwapMax": 20}, {"MemoryLimit": 10}),
        ({"memory": {"reservation": 5}}, {"MemoryLow": 5}, {}),
        ({"cpu": {"shares": 1024}}, {"CPUWeight": 100}, {"CPUShares": 1024}),
        ({"cpu": {"idle": 1}}, {"CPUWeight": 0}, {}),
        ({"cpu": {"idle": 1, "shares": 9}}, {"CPUWeight": 0}, {"CPUShares": 9}),
        ({"pids": {"limit": 5}}, {"TasksMax": 5}, {"TasksMax": 5}),
        ({"pids": {"limit": 0}}, {"TasksMax": 1}, {"TasksMax": 1}),
        ({"pids": {"limit": -1}}, {"TasksMax": INFINITY}, {"TasksMax": INFINITY}),
        ({"blockIO": {"weight": 10}}, {"IOWeight": 1}, {"BlockIOWeight": 10}),
        ({"cpu": {"cpus": "0,2-3"}}, {"AllowedCPUs": b"\x0d"}, {"AllowedCPUs": b"\x0d"}),
        ({"cpu": {"mems": "8"}}, {"AllowedMemoryNodes": b"\0\1"}, {"AllowedMemoryNodes": b"\0\1"}),
        ({}, {}, {}),
        ({"memory": {"limit": 0}, "cpu": {"shares": 0, "quota": 0}}, {}, {}),
    ],
)
def test_each_resource(resources: LinuxResources, v2: dict[str, object], v1: dict[str, object]) -> None:
    """What a resource is called and counted as under both versions."""
    assert properties(resources) == v2
    assert properties(resources, v2=False) == v1


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [
        (50000, 100000, {"CPUQuotaPerSecUSec": 500_000, "CPUQuotaPeriodUSec": 100_000}),
        (50000, 0, {"CPUQuotaPerSecUSec": 500_000}),
        (12345, 100000, {"CPUQuotaPerSecUSec": 130_000, "CPUQuotaPeriodUSec": 100_000}),
        (-1, 0, {"CPUQuotaPerSecUSec": INFINITY}),
        (0, 200000, {"CPUQuotaPerSecUSec": INFINITY, "CPUQuotaPeriodUSec": 200_000}),
    ],
)
def test_quota(quota: int, period: int, expected: dict[str, object]) -> None:
    """A quota is microseconds a second, up to the next whole percent."""
    assert properties({"cpu": {"quota": quota, "period": period}}) == expected


@given(st.integers(1000, 10**9), st.integers(1000, 10**6))
def test_file_and_property_agree(quota: int, period: int) -> None:
    """The rounded quota is never less than asked for, less than a percent more, and rounds no further."""
    once = rounded({"cpu": {"quota": quota, "period": period}})["cpu"]["quota"]
    assert quota <= once + 1
    assert (once - quota) * 100 <= period
    first = properties({"cpu": {"quota": quota, "period": period}})["CPUQuotaPerSecUSec"]
    assert properties({"cpu": {"quota": once, "period": period}})["CPUQuotaPerSecUSec"] == first


def test_rounding_leaves_the_rest() -> None:
    """Only a quota that is no whole percentage changes; what was given is not modified."""
    given_resources: LinuxResources = {"cpu": {"quota": 12345, "period": 100000, "shares": 3}, "pids": {"limit": 5}}
    assert rounded(given_resources) == {"cpu": {"quota": 13000, "period": 100000, "shares": 3}, "pids": {"limit": 5}}
    assert given_resources["cpu"]["quota"] == 12345
    for quota in (0, -1, 50000):
        assert rounded({"cpu": {"quota": quota}}) == {"cpu": {"quota": quota}}


def test_unified() -> None:
    """cgroup v2's own names become properties where there is one; the others are left to the files."""
    assert properties({
        "unified": {
            "memory.max": "100", "memory.high": "max", "memory.low": " 5 ", "memory.min": "1", "memory.swap.max": "0",
            "pids.max": "0", "cpu.max": "50000 100000", "cpu.weight": "7", "cpuset.cpus": "1", "io.max": "8:0 rbps=1",
        }
    }) == {
        "MemoryMax": 100, "MemoryHigh": INFINITY, "MemoryLow": 5, "MemoryMin": 1, "MemorySwapMax": 0, "TasksMax": 1,
        "CPUQuotaPerSecUSec": 500_000, "CPUQuotaPeriodUSec": 100_000, "CPUWeight": 7, "AllowedCPUs": b"\2",
    }  # fmt: skip
    assert properties({"unified": {"cpu.max": "max"}})["CPUQuotaPerSecUSec"] == INFINITY
    assert properties({"unified": {"cpu.idle": "1", "cpu.weight": "7"}}) == {"CPUWeight": 0}
    with pytest.raises(SpecError):
        properties({"unified": {"memory.max": "lots"}})


def test_oom_policy_is_set_at_creation_only() -> None:
    """A running scope takes no other OOMPolicy=."""
    resources: LinuxResources = {"unified": {"memory.oom.group": "1"}}
    made = convert(resources, v2=True, version=lambda: 253)
    assert ("OOMPolicy", ("s", "kill")) in made
    assert properties(resources, version=253) == {}
    assert ("OOMPolicy", ("s", "kill")) not in convert(resources, v2=True, version=lambda: 252)


def test_old_systemd_is_not_told_what_it_does_not_know() -> None:
    """An unknown property would make it refuse the whole unit; the files are written in any case."""
    resources: LinuxResources = {"cpu": {"quota": 50000, "period": 100000, "cpus": "0", "idle": 1}}
    assert properties(resources, version=239) == {"CPUQuotaPerSecUSec": 500_000}
    assert convert({"memory": {"limit": 5}, "pids": {"limit": 5}}, v2=True, version=never)


def test_unset_takes_everything_back() -> None:
    """For each property that can be set there is a value that means that nothing is."""
    found = convert(
        {"memory": {"limit": 1, "reservation": 1}, "cpu": {"quota": 1000, "cpus": "0"}, "pids": {"limit": 1}},
        v2=True, version=lambda: 252, devices=False,
    )  # fmt: skip
    assert dict(unset(found)) == {
        "MemoryMax": ("t", INFINITY),
        "MemoryLow": ("t", 0),
        "CPUQuotaPerSecUSec": ("t", INFINITY),
        "AllowedCPUs": ("ay", b""),
        "TasksMax": ("t", INFINITY),
    }


@pytest.mark.parametrize("text", ["", ",", "a", "1-", "-1", "3-2", "1-2-3", "99999999"])
def test_bad_lists(text: str) -> None:
    """No list of CPUs, an empty or a huge one is an error at its path."""
    with pytest.raises(SpecError) as caught:
        bits(text, "where")
    assert caught.value.path == "where"


@given(st.sets(st.integers(0, 300), min_size=1))
def test_bits(numbers: set[int]) -> None:
    """The n-th bit stands for number n."""
    mask = int.from_bytes(bits(",".join(map(str, sorted(numbers))), "x"), "little")
    assert {n for n in range(301) if mask >> n & 1} == numbers


def policy(rules: list[DeviceCgroup], *, v2: bool) -> tuple[object, list[tuple[str, str]]]:
    """DevicePolicy= and all of DeviceAllow=."""
    found = device_policy(Devices(rules, defaults=False), v2=v2)
    assert found[0] == ("DeviceAllow", ("a(ss)", []))
    allowed = [entry for name, (_, value) in found if name == "DeviceAllow" for entry in value]  # type: ignore[attr-defined]
    return dict(found)["DevicePolicy"][1], allowed


@pytest.mark.parametrize("v2", [False, True])
def test_allowed_devices_are_listed(v2: bool) -> None:
    """Devices by number, by major number, and all of a type."""
    rules: list[DeviceCgroup] = [
        DENY_ALL,
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
        {"allow": True, "type": "c", "major": 136, "access": "rwm"},
        {"allow": True, "type": "b", "access": "m"},
    ]
    assert policy(rules, v2=v2) == (
        "strict", [("/dev/char/1:3", "rw"), ("char-136", "rwm"), ("block-*", "m")],
    )  # fmt: skip


@pytest.mark.parametrize("v2", [False, True])
def test_everything_allowed(v2: bool) -> None:
    """A container that may use all devices has no policy."""
    assert policy([{"allow": True, "access": "rwm"}], v2=v2) == ("auto", [])


@pytest.mark.parametrize(
    "rules",
    [
        [{"allow": True, "access": "rwm"}, {"allow": False, "type": "c", "major": 1, "minor": 1, "access": "r"}],
        [DENY_ALL, {"allow": True, "type": "c", "minor": 7, "access": "r"}],
    ],
)
def test_what_systemd_cannot_say(rules: list[DeviceCgroup]) -> None:
    """v2 leaves it to our own program, which systemd does not touch; on v1 systemd allows nothing of it."""
    assert policy(rules, v2=True) == ("auto", [])
    assert policy(rules, v2=False) == ("strict", [])

"""Device rules: what they mean, the v1 writes, and the v2 program run by a small interpreter of its own."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysvisor_runc.cgroup.device_rule import ANY, MKNOD, READ, WRITE, Rule
from sysvisor_runc.cgroup.devices import Devices
from sysvisor_runc.cgroup.devices_v2 import program
from sysvisor_runc.errors import SpecError
from sysvisor_runc.spec.types import DeviceCgroup

DENY_ALL: DeviceCgroup = {"allow": False, "access": "rwm"}
ALLOW_ALL: DeviceCgroup = {"allow": True, "access": "rwm"}
KMSG: DeviceCgroup = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "rw"}


def run(code: bytes, type_: int, access: int, major: int, minor: int) -> int:
    """What the program answers: 1 allows."""
    registers = [0] * 11
    memory = {0: access << 16 | type_, 4: major, 8: minor}
    pc = 0
    while True:
        opcode, reg, off, imm = struct.unpack_from("=BBhi", code, 8 * pc)
        dst, src = reg & 15, reg >> 4
        pc += 1
        if opcode == 0x61:
            registers[dst] = memory[off]
        elif opcode == 0xB7:
            registers[dst] = imm
        elif opcode == 0xBF:
            registers[dst] = registers[src]
        elif opcode == 0x57:
            registers[dst] &= imm
        elif opcode == 0x77:
            registers[dst] >>= imm
        elif opcode == 0x15:
            pc += off if registers[dst] == imm else 0
        elif opcode == 0x55:
            pc += off if registers[dst] != imm else 0
        else:
            assert opcode == 0x95
            return registers[0]


def judge(devices: Devices, type_: str, access: int, major: int, minor: int) -> bool:
    """What the rules mean, access by access: the last rule that names it decides."""
    for bit in (MKNOD, READ, WRITE):
        if access & bit:
            verdict = devices.allow
            for rule in devices.rules:
                if rule.type == type_ and rule.mask & bit and rule.major in (ANY, major) and rule.minor in (ANY, minor):
                    verdict = rule.allow
            if not verdict:
                return False
    return True


@pytest.mark.parametrize("wanted", [[], [DENY_ALL], [ALLOW_ALL, DENY_ALL]])
def test_default_rules(wanted: list[DeviceCgroup]) -> None:
    """Without rules of its own, a container has the standard devices, mknod of all, and nothing else."""
    devices = Devices(wanted)
    code = program(devices.rules, allow=devices.allow)
    allowed = [(major, minor) for major in range(12) for minor in range(12) if run(code, 2, READ | WRITE, major, minor)]
    assert allowed == [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)]
    assert run(code, 2, READ | WRITE, 136, 77)
    assert run(code, 1, MKNOD, 8, 0)
    assert not run(code, 1, READ, 8, 0)


def test_rules_for_all_types_replace_earlier_ones() -> None:
    """After `allow everything`, what was denied before is forgotten."""
    devices = Devices([{"allow": False, "type": "c", "access": "rwm"}, ALLOW_ALL], defaults=False)
    assert devices.describe() == "devices: allow all"


def test_unknown_access_letters_are_ignored() -> None:
    """Old configurations carry letters that mean nothing; runc takes them too."""
    devices = Devices([{"allow": True, "type": "c", "major": 1, "minor": 11, "access": "rwa"}], defaults=False)
    assert devices.describe() == "devices: deny all, allow c 1:11 rw"


@pytest.mark.parametrize(
    "rule",
    [
        {"allow": True, "type": "x", "access": "r"},
        {"allow": True, "type": "c", "access": ""},
        {"allow": True, "type": "c", "major": -2, "access": "r"},
    ],
)
def test_bad_rules(rule: DeviceCgroup) -> None:
    """A bad rule is named by its JSON path."""
    with pytest.raises(SpecError, match=r"linux\.resources\.devices\[0\]"):
        Devices([rule])


rules = st.builds(
    Rule,
    st.booleans(),
    st.sampled_from("bc"),
    st.sampled_from((ANY, 1, 2)),
    st.sampled_from((ANY, 1, 2)),
    st.integers(1, 7),
)


@settings(deadline=None)
@given(st.booleans(), st.lists(rules, max_size=8))
def test_program_means_what_the_rules_mean(allow: bool, some: list[Rule]) -> None:
    """For any list of rules the program answers as the rules read, for every access to every device."""
    devices = Devices([], defaults=False)
    devices.allow, devices.rules = allow, some
    code = program(some, allow=allow)
    for number, type_ in ((1, "b"), (2, "c")):
        for access in range(1, 8):
            for major in (1, 2, 3):
                for minor in (1, 2, 3):
                    assert run(code, number, access, major, minor) == judge(devices, type_, access, major, minor)


def test_v1_from_the_top() -> None:
    """A cgroup that allows everything is shut first, then opened rule by rule."""
    writes = Devices([DENY_ALL, KMSG], defaults=False).v1_writes("a *:* rwm")
    assert writes == [("devices.deny", "a"), ("devices.allow", "c 1:11 rw")]


def test_v1_minimal_change() -> None:
    """From one list to another only the difference is written, what is new before what goes."""
    writes = Devices([DENY_ALL, KMSG], defaults=False).v1_writes("c 1:3 rwm\nc 1:11 rm")
    assert writes == [("devices.allow", "c 1:11 w"), ("devices.deny", "c 1:3 rwm"), ("devices.deny", "c 1:11 m")]


def test_v1_no_change() -> None:
    """Rules that are in force already cost no write: a running container sees no gap."""
    devices = Devices([])
    shown = "\n".join(value for file, value in devices.v1_writes("") if file == "devices.allow")
    assert devices.v1_writes(shown) == []


def test_v1_privileged() -> None:
    """`allow everything` opens a shut cgroup, and writes nothing to an open one but its exceptions."""
    deny: DeviceCgroup = {"allow": False, "type": "b", "major": 8, "access": "w"}
    assert Devices([ALLOW_ALL]).v1_writes("c 1:3 rwm") == [("devices.allow", "a")]
    assert Devices([ALLOW_ALL, deny]).v1_writes("a *:* rwm")[-1] == ("devices.deny", "b 8:* w")


def test_v1_wider_rule_takes_narrower_back() -> None:
    """Denying a whole major undoes what was allowed of it."""
    deny: DeviceCgroup = {"allow": False, "type": "c", "major": 1, "access": "w"}
    assert Devices([KMSG, deny], defaults=False).v1_exceptions() == {("c", 1, 11): READ}


def test_v1_cannot_cut_holes() -> None:
    """Denying a part of what is allowed whole cannot be said on v1, and is refused instead of ignored."""
    wide: DeviceCgroup = {"allow": True, "type": "c", "access": "rw"}
    narrow: DeviceCgroup = {"allow": False, "type": "c", "major": 1, "minor": 11, "access": "r"}
    with pytest.raises(SpecError, match="cut a hole"):
        Devices([wide, narrow], defaults=False).v1_exceptions()

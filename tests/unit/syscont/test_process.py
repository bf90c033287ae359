"""Capabilities, OOM score, limits and AppArmor of a process inside."""

import os
import pathlib

import pytest

from sysvisor_runc.kernel import capability
from sysvisor_runc.spec.types import Process
from sysvisor_runc.syscont.capabilities import convert_capabilities
from sysvisor_runc.syscont.convert import convert
from sysvisor_runc.syscont.lacking import without_lacking
from sysvisor_runc.syscont.process import convert_process, getenv, with_env
from sysvisor_runc.syscont.settings import Settings
from tests.unit.syscont import sample

FULL = list(capability.NAMES)
INFINITY = 2**64 - 1


def process(**changes: object) -> Process:
    return sample.spec(process=changes)["process"]


def converted(given: Process, **facts: object) -> tuple[Process, list[str]]:
    return convert_process(given, sample.facts(**facts), Settings())


def test_root() -> None:
    """Root holds everything, and passes nothing on that execve would not give again."""
    sets = converted(process())[0]["capabilities"]
    assert sets["bounding"] == sets["effective"] == sets["permitted"] == FULL
    assert sets["inheritable"] == sets["ambient"] == []


def test_users() -> None:
    """Another user holds nothing, whatever the spec says, but may become root through `su`."""
    given = process(user={"uid": 1000, "gid": 1000}, capabilities={"ambient": ["CAP_KILL"], "effective": ["CAP_KILL"]})
    sets = converted(given)[0]["capabilities"]
    assert sets["bounding"] == FULL
    assert not sets["effective"] + sets["permitted"] + sets["inheritable"] + sets["ambient"]


def test_a_small_kernel() -> None:
    """No capability is asked for that the kernel does not have."""
    assert converted(process(), cap_names=capability.NAMES[:38])[0]["capabilities"]["bounding"] == FULL[:38]


def test_honoured() -> None:
    """With HONOR_CAPS the spec's sets stay as they are."""
    settings = Settings()
    settings.honor_caps = True
    given = process(capabilities={"bounding": ["CAP_KILL"]})
    assert convert_capabilities(given, sample.facts(), settings) == given


@pytest.mark.root
def test_a_user_namespace_gives_what_the_caller_lacks() -> None:
    """The kernel fact behind all this: entering a user namespace fills the bounding set as well."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            from sysvisor_runc.kernel.prctl import prctl

            prctl(24, 24)  # PR_CAPBSET_DROP, CAP_SYS_RESOURCE
            from sysvisor_runc.kernel.namespaces import CLONE_NEWUSER, unshare

            unshare(CLONE_NEWUSER)
            os.write(write, pathlib.Path("/proc/self/status").read_bytes())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        status = dict(line.split(":\t") for line in file.read().splitlines() if line.startswith("Cap"))
    os.waitpid(pid, 0)
    full = (1 << capability.last_cap() + 1) - 1
    assert [int(status[name], 16) for name in ("CapBnd", "CapPrm", "CapEff")] == [full] * 3


def test_lacking() -> None:
    """Without a user namespace what the caller lacks is dropped from every set, and named once."""
    sets = {"bounding": ["CAP_KILL", "CAP_SYS_RESOURCE"], "ambient": ["CAP_SYS_RESOURCE", "CAP_FUTURE"]}
    reduced, dropped = without_lacking(sets, capability.NAMES, sample.ALL_CAPABILITIES & ~sample.SYS_RESOURCE)  # type: ignore[arg-type]
    assert reduced == {"bounding": ["CAP_KILL"], "ambient": ["CAP_FUTURE"]}
    assert dropped == ("CAP_SYS_RESOURCE",)


@pytest.mark.parametrize(
    ("given", "own", "may", "expected"),
    [
        (None, 0, True, None),
        (None, -500, False, None),
        (None, -1000, False, -999),
        (-1000, 0, True, -999),
        (-1000, 0, False, 0),
        (-500, -700, False, -500),
        (300, 0, False, 300),
        (0, 0, False, 0),
    ],
)
def test_oom_score(given: int | None, own: int, may: bool, expected: int | None) -> None:
    """Nobody is exempt from the OOM killer, and nobody fails for want of a right to go lower."""
    before = process() if given is None else process(oomScoreAdj=given)
    after, warnings = converted(before, oom_score_adj=own, capabilities=sample.SYS_RESOURCE if may else 0)
    assert after.get("oomScoreAdj") == expected
    assert bool(warnings) == (given == -1000 and not may)


def test_oom_floor() -> None:
    """Processes inside may go down to the floor where the caller can arrange it."""
    assert convert(sample.spec(), sample.facts())[1].oom_score_adj_min == -999
    assert convert(sample.spec(), sample.facts(capabilities=0))[1].oom_score_adj_min is None


@pytest.mark.parametrize(
    ("hard", "held", "expected"),
    [(30000, 20000, 20000), (20000, 20000, 20000), (INFINITY, 20000, 20000), (INFINITY, -1, INFINITY), (5, -1, 5)],
)
def test_rlimits(hard: int, held: int, expected: int) -> None:
    """A hard limit above the caller's own is lowered to it where raising it would be EPERM."""
    given = process(rlimits=[{"type": "RLIMIT_NOFILE", "hard": hard, "soft": hard}])
    after, warnings = converted(given, capabilities=0, rlimits={"RLIMIT_NOFILE": (1024, held)})
    assert after["rlimits"] == [{"type": "RLIMIT_NOFILE", "hard": expected, "soft": expected}]
    assert bool(warnings) == (hard != expected)
    assert converted(given)[0]["rlimits"] == given["rlimits"]


def test_apparmor() -> None:
    """A profile meant for application containers is dropped, and the launch knows."""
    given = sample.spec(process={"apparmorProfile": "docker-default"})
    after, traits = convert(given, sample.facts())
    assert "apparmorProfile" not in after["process"]
    assert traits.clear_apparmor


def test_no_new_privileges_is_honoured() -> None:
    """It is the user's wish, system container or not."""
    assert converted(process(noNewPrivileges=True))[0]["noNewPrivileges"] is True


def test_environment() -> None:
    """The last value counts; setting replaces them all."""
    given = process(env=["A=1", "AB=x", "A=2"])
    assert getenv(given, "A") == "2"
    assert getenv(given, "B") is None
    assert with_env(given, {"A": "3"})["env"] == ["AB=x", "A=3"]

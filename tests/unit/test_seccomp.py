"""What the conversion makes of a profile, and what is wrong with profiles that do not compile."""

import copy
import json
import pathlib

import pytest

from sysvisor_runc.errors import SpecError
from sysvisor_runc.plan import seccomp
from sysvisor_runc.spec.types import Seccomp, SeccompArg, SeccompSyscall
from sysvisor_runc.syscont.seccomp import allow_system_calls
from sysvisor_runc.syscont.syscalls import CONDITIONAL, NEEDED, REQUIRED

DOCKER: Seccomp = json.loads((pathlib.Path(__file__).parents[1] / "data/seccomp-default.json").read_text())
ANY: SeccompArg = {"index": 0, "op": "SCMP_CMP_EQ", "value": 1}


def rule(action: str, *names: str, args: list[SeccompArg] | None = None, **fields: object) -> SeccompSyscall:
    result: SeccompSyscall = {"names": [*names], "action": f"SCMP_ACT_{action}"}
    if args:
        result["args"] = args
    return {**result, **fields}  # type: ignore[typeddict-item]  # any field


def profile(default: str, *rules: SeccompSyscall, **fields: object) -> Seccomp:
    return {"defaultAction": f"SCMP_ACT_{default}", "syscalls": [*rules], **fields}  # type: ignore[typeddict-item]  # any field


def rules_naming(converted: Seccomp, name: str) -> list[SeccompSyscall]:
    return [rule for rule in converted["syscalls"] if name in rule["names"]]


@pytest.mark.parametrize("default", ["ERRNO", "KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP"])
def test_allow_list_allows_what_is_needed(default: str) -> None:
    """Every needed call is allowed without conditions, and nothing else is added."""
    converted = allow_system_calls(profile(default))
    assert [rule["action"] for rule in converted["syscalls"]] == ["SCMP_ACT_ALLOW"]
    assert set(converted["syscalls"][0]["names"]) == NEEDED
    assert "args" not in converted["syscalls"][0]


def test_allow_list_without_rules() -> None:
    """The list of rules may be absent."""
    assert set(allow_system_calls({"defaultAction": "SCMP_ACT_ERRNO"})["syscalls"][0]["names"]) == NEEDED


def test_conditions_of_needed_calls_are_dropped() -> None:
    """A conditional rule is split: needed calls lose the conditions, others keep them."""
    converted = allow_system_calls(profile("ERRNO", rule("ALLOW", "clone", "swapon", args=[ANY])))
    assert rules_naming(converted, "clone") == [rule("ALLOW", "clone")]
    assert rules_naming(converted, "swapon") == [rule("ALLOW", "swapon", args=[ANY])]


@pytest.mark.parametrize("name", sorted(CONDITIONAL))
def test_conditions_of_personality_and_socket_stay(name: str) -> None:
    """Their conditions are kept, be they to allow or to deny; unconditional denials go."""
    kept = rule("ALLOW", name, args=[ANY])
    assert rules_naming(allow_system_calls(profile("ERRNO", kept)), name) == [kept]
    denied = rule("ERRNO", name, args=[ANY], errnoRet=97)
    assert denied in allow_system_calls(profile("ERRNO", denied))["syscalls"]
    assert (
        rules_naming(allow_system_calls(profile("ERRNO", rule("ERRNO", name))), name)[0]["action"] == "SCMP_ACT_ALLOW"
    )


@pytest.mark.parametrize("action", ["ERRNO", "KILL", "KILL_PROCESS", "TRAP"])
def test_denials_lose_just_the_needed_names(action: str) -> None:
    """A denying rule keeps its other names and its errno, or goes when nothing is left of it."""
    denied = rule(action, "mount", "swapon", "clone3", errnoRet=38)
    gone = rule(action, "clone3")
    converted = allow_system_calls(profile("ERRNO", denied, gone))
    assert converted["syscalls"][0] == rule(action, "swapon", errnoRet=38)
    assert [rule["action"] for rule in converted["syscalls"][1:]] == ["SCMP_ACT_ALLOW"]


@pytest.mark.parametrize("action", ["NOTIFY", "TRACE", "LOG"])
def test_interceptions_stay(action: str) -> None:
    """Who asks an agent, a tracer or the log about a needed call is asked about all of them, and none goes past."""
    converted = allow_system_calls(profile("ERRNO", rule(action, "mount", args=[ANY]), rule(action, "umount2")))
    assert rules_naming(converted, "mount") == [rule(action, "mount")]
    assert rules_naming(converted, "umount2") == [rule(action, "umount2")]


@pytest.mark.parametrize("default", ["ALLOW", "LOG", "TRACE"])
def test_block_list_unblocks_exactly_what_is_required(default: str) -> None:
    """Names without which there is no system container are unblocked, all others stay blocked as they were."""
    blocked = rule("ERRNO", *sorted(REQUIRED), "mkdir", "ptrace", "swapon", errnoRet=5)
    condition = rule("KILL", "clone", "socket", args=[ANY])
    converted = allow_system_calls(profile(default, blocked, condition, rule("ERRNO", "keyctl")))
    expected = [rule("ERRNO", "mkdir", "ptrace", "swapon", errnoRet=5), rule("KILL", "socket", args=[ANY])]
    assert converted == profile(default, *expected)


def test_block_list_keeps_interceptions() -> None:
    """A block-list's rules that deny nothing stay untouched."""
    given = profile("ALLOW", rule("NOTIFY", "mount"), rule("LOG", "setns"), rule("TRACE", "unshare"))
    assert allow_system_calls(given) == given


@pytest.mark.parametrize("given", [DOCKER, profile("ALLOW", rule("ERRNO", "mount", "swapon")), {"defaultAction": ""}])
def test_the_given_profile_is_not_changed(given: Seccomp) -> None:
    """The conversion returns a new profile with all other fields."""
    before = copy.deepcopy(given)
    converted = allow_system_calls(given)
    assert given == before
    assert {**converted, "syscalls": None} == {**given, "syscalls": None}


def test_conversion_is_stable() -> None:
    """Converting twice changes nothing more, and the same profile gives the same bytes for the cache's key."""
    once = allow_system_calls(DOCKER)
    assert allow_system_calls(once) == once
    assert repr(once) == repr(allow_system_calls(copy.deepcopy(DOCKER)))


def test_what_no_user_namespace_contains_is_not_needed() -> None:
    """Calls that reach the whole machine are never allowed by us."""
    dangerous = (
        "kexec_load kexec_file_load init_module finit_module delete_module create_module swapon swapoff acct syslog "
        "iopl ioperm settimeofday clock_settime stime perf_event_open lookup_dcookie io_uring_setup io_uring_enter "
        "io_uring_register userfaultfd nfsservctl vm86 vm86old sysfs uselib ustat s390_pci_mmio_write"
    )
    assert set(dangerous.split()) & NEEDED == set()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (profile(""), ".defaultAction: 'SCMP_ACT_' is not a seccomp action"),
        (profile("NOTIFY"), ".defaultAction: SCMP_ACT_NOTIFY cannot be used as default action"),
        (profile("ALLOW", defaultErrnoRet=1), ".defaultErrnoRet: SCMP_ACT_ALLOW takes no errno"),
        (profile("ERRNO", defaultErrnoRet=4096), ".defaultErrnoRet: 4096 is not between 0 and 4095"),
        (profile("ALLOW", rule("DENY", "read")), ".syscalls[0].action: 'SCMP_ACT_DENY' is not a seccomp action"),
        (profile("ALLOW", rule("KILL", "read", errnoRet=1)), ".syscalls[0].errnoRet: SCMP_ACT_KILL takes no errno"),
        (profile("ALLOW", rule("TRACE", "read", errnoRet=65536)), "errnoRet: 65536 is not between 0 and 65535"),
        (profile("ALLOW", rule("ERRNO", "")), ".syscalls[0].names: an empty string is not a system call"),
        (profile("ALLOW", rule("NOTIFY", "read", "write")), "SCMP_ACT_NOTIFY cannot be used for the write syscall"),
        (profile("ALLOW", rule("NOTIFY", "read")), ".listenerPath: must be set for rules with SCMP_ACT_NOTIFY"),
        (profile("ALLOW", rule("NOTIFY", "read"), listenerPath=""), ".listenerPath: must be set"),
        (profile("ALLOW", listenerMetadata="x"), ".listenerMetadata: must not be set without listenerPath"),
        (profile("ALLOW", flags=["SECCOMP_FILTER_FLAG_X"]), ".flags[0]: 'SECCOMP_FILTER_FLAG_X' is not a known"),
        (
            profile("ALLOW", flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]),
            ".flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY",
        ),
        (profile("ALLOW", architectures=["SCMP_ARCH_Z80"]), ".architectures[0]: 'SCMP_ARCH_Z80' is not a known"),
        (
            profile("ALLOW", rule("ERRNO", "read", args=[{**ANY, "op": "SCMP_CMP_IN"}])),
            ".syscalls[0].args[0].op: 'SCMP_CMP_IN' is not an operator",
        ),
        (
            profile("ALLOW", rule("ERRNO", "read", args=[ANY, {**ANY, "index": 6}])),
            ".syscalls[0].args[1].index: 6 is not between 0 and 5",
        ),
        (
            profile("ALLOW", rule("ERRNO", "read", args=[{**ANY, "value": 1 << 64}])),
            ".syscalls[0].args[0]: a value does not fit 64 bits",
        ),
        (
            profile("ALLOW", rule("ERRNO", "read", args=[ANY]), rule("KILL", "read", args=[ANY])),
            ".syscalls[1]: contradicts an earlier rule for read",
        ),
    ],
)  # fmt: skip
def test_bad_profiles_are_named(bad: Seccomp, message: str) -> None:
    """The error has the JSON path and what is wrong there."""
    with pytest.raises(SpecError) as caught:
        seccomp.compile(bad, None)
    assert message in caught.value.message
    assert caught.value.path.startswith("linux.seccomp.")


def test_listener_without_notify_is_ignored() -> None:
    """A listener that no rule asks is allowed, and nothing will be sent to it."""
    result = seccomp.compile(profile("ALLOW", listenerPath="/run/agent.sock", listenerMetadata="x"), None)
    assert (result.notify, result.listener_path, result.listener_metadata) == (False, "", "")

"""Compiled profiles, judged by what the running kernel does to a process under them."""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import pathlib
import platform
import signal
import struct

import pytest

from sysvisor_runc.errors import SpecError
from sysvisor_runc.kernel import libseccomp
from sysvisor_runc.kernel import seccomp as kernel
from sysvisor_runc.kernel.syscall import SyscallError, syscall
from sysvisor_runc.plan import seccomp, seccomp_cache, seccomp_enosys
from sysvisor_runc.spec.types import Seccomp, SeccompArg, SeccompSyscall
from sysvisor_runc.syscont.seccomp import allow_system_calls
from tests.support.filtered import ESSENTIAL, Call, errnos, load, outcome

DOCKER: Seccomp = json.loads((pathlib.Path(__file__).parents[1] / "data/seccomp-default.json").read_text())
# An errno that no call here fails with by itself.
MARK = errno.ENOANO
SEND = struct.Struct("=QqiI")

x86_64_only = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the other ABIs of x86_64; to force it: run on x86_64"
)


def block(*names: str, **rule: object) -> Seccomp:
    """A profile that allows everything else."""
    rules: list[SeccompSyscall] = [{"names": [*names], "action": "SCMP_ACT_ERRNO", **rule}]  # type: ignore[typeddict-item]  # any field
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}


def allow(*names: str, action: str = "SCMP_ACT_ERRNO") -> Seccomp:
    """A profile that denies everything else."""
    return {
        "defaultAction": action,
        "syscalls": [{"names": [*ESSENTIAL, *names], "action": "SCMP_ACT_ALLOW"}],
    }


def compiled(profile: Seccomp) -> seccomp_cache.Filter:
    return seccomp.compile(profile, None)


def arg(index: int, op: str, value: int, second: int = 0) -> SeccompArg:
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": second}


BIG = 1 << 32


@pytest.mark.parametrize(
    ("condition", "matching", "others"),
    [
        (arg(0, "EQ", BIG + 5), [BIG + 5], [5, BIG + 4, BIG + 6, 2 * BIG + 5]),
        (arg(0, "NE", BIG + 5), [5, BIG + 4], [BIG + 5]),
        (arg(0, "LT", BIG + 5), [0, 6, BIG + 4], [BIG + 5, BIG + 6, 2 * BIG]),
        (arg(0, "LE", BIG + 5), [0, 6, BIG + 5], [BIG + 6, 2 * BIG]),
        (arg(0, "GT", BIG + 5), [BIG + 6, 2 * BIG], [0, 6, BIG + 5]),
        (arg(0, "GE", BIG + 5), [BIG + 5, 2 * BIG], [0, 6, BIG + 4]),
        (arg(0, "MASKED_EQ", BIG + 0xF0, BIG + 0x10), [BIG + 0x10, BIG + 0x1F], [0x10, BIG + 0x20, BIG + 0x30]),
        (arg(5, "EQ", 0), [1], []),
    ],
    ids=["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ", "sixth argument"],
)
def test_operators_compare_64_bits(condition: SeccompArg, matching: list[int], others: list[int]) -> None:
    """Each operator holds for exactly the values it says, in all 64 bits of the argument."""
    result = compiled(block("getpgid", errnoRet=MARK, args=[condition]))
    assert errnos(result, *(Call("getpgid", value) for value in matching)) == [MARK] * len(matching)
    assert MARK not in errnos(result, *(Call("getpgid", value) for value in others))


def test_conditions_on_different_arguments_must_all_hold() -> None:
    """Two conditions on two arguments are one rule."""
    result = compiled(block("getpgid", errnoRet=MARK, args=[arg(0, "EQ", 1), arg(1, "EQ", 2)]))
    assert errnos(result, Call("getpgid", 1, 2)) == [MARK]
    assert MARK not in errnos(result, Call("getpgid", 1, 3), Call("getpgid", 3, 2))


def test_conditions_on_one_argument_are_alternatives() -> None:
    """Two conditions on one argument are a rule each, and so is every other condition beside them."""
    args = [arg(0, "EQ", 7), arg(0, "EQ", 8), arg(1, "EQ", 9)]
    result = compiled(block("getpgid", errnoRet=MARK, args=args))
    assert errnos(result, *(Call("getpgid", *values) for values in ((7, 0), (8, 0), (1, 9)))) == [MARK] * 3
    assert MARK not in errnos(result, Call("getpgid", 1, 1))


def test_errno_is_eperm_unless_given() -> None:
    """ERRNO answers EPERM, or what errnoRet says, without making the call."""
    assert errnos(compiled(block("getpgid")), Call("getpgid")) == [errno.EPERM]
    assert errnos(compiled(block("getpgid", errnoRet=100)), Call("getpgid")) == [100]
    assert errnos(compiled(block("close", errnoRet=0)), Call("close", 9999)) == [0]


def test_default_errno() -> None:
    """The default action answers EPERM, or what defaultErrnoRet says."""
    profile = allow("setns")
    assert errnos(compiled(profile), Call("chdir")) == [errno.EPERM]
    profile["defaultErrnoRet"] = errno.ENXIO
    assert errnos(compiled(profile), Call("chdir")) == [errno.ENXIO]


@pytest.mark.parametrize("action", ["KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP"])
def test_deadly_actions(action: str) -> None:
    """KILL, KILL_THREAD, KILL_PROCESS and an unhandled TRAP end the process by SIGSYS."""
    results, status = outcome(compiled(block("getpgid", action=f"SCMP_ACT_{action}")), Call("getpgid"))
    assert (results, os.WTERMSIG(status)) == ([], signal.SIGSYS)


def test_deadly_default() -> None:
    """A default action other than ERRNO works too, and still answers ENOSYS to what is newer than the profile."""
    result = compiled(allow("setns", action="SCMP_ACT_KILL_PROCESS"))
    assert errnos(result, Call(1000)) == [errno.ENOSYS]
    assert os.WTERMSIG(outcome(result, Call("chdir"))[1]) == signal.SIGSYS


def test_log_lets_the_call_through() -> None:
    """LOG makes the call."""
    assert errnos(compiled(block("close", action="SCMP_ACT_LOG")), Call("close", 9999)) == [errno.EBADF]


def test_trace_without_tracer_is_enosys() -> None:
    """TRACE answers ENOSYS where nobody traces."""
    assert errnos(compiled(block("getpgid", action="SCMP_ACT_TRACE")), Call("getpgid")) == [errno.ENOSYS]


@pytest.mark.parametrize(("fields", "code"), [({}, errno.EPERM), ({"errnoRet": 4711}, 4711)])
def test_trace_tells_the_tracer_its_code(fields: dict[str, int], code: int) -> None:
    """The tracer gets errnoRet, EPERM unless given, as the event's message."""
    result = compiled(block("getpgid", action="SCMP_ACT_TRACE", **fields))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    traceme, getoptions, geteventmsg, cont, traceseccomp = 0, 0x4200, 0x4201, 7, 1 << 7
    child = os.fork()
    if child == 0:
        libc.ptrace(traceme, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        load(result)
        Call("getpgid").errno()
        os._exit(0)
    try:
        os.waitpid(child, 0)
        assert libc.ptrace(getoptions, child, None, traceseccomp) == 0
        libc.ptrace(cont, child, None, None)
        status = os.waitpid(child, 0)[1]
        assert status >> 8 == signal.SIGTRAP | 7 << 8  # PTRACE_EVENT_SECCOMP
        message = ctypes.c_ulong()
        assert libc.ptrace(geteventmsg, child, None, ctypes.addressof(message)) == 0
        assert message.value == code
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("flags", [None, ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]])
def test_notify_asks_the_listener(flags: list[str] | None) -> None:
    """NOTIFY hands the call to whoever holds the listener, which answers it; WAIT_KILLABLE_RECV goes with it."""
    profile = block("mkdir", "mkdirat", action="SCMP_ACT_NOTIFY")
    profile["listenerPath"] = "/run/agent.sock"
    if flags is not None:
        profile["flags"] = flags
    result = compiled(profile)
    assert (result.notify, result.listener_path, result.listener_metadata) == (True, "/run/agent.sock", "")
    assert result.flags == (kernel.SECCOMP_FILTER_FLAG_NEW_LISTENER | (32 if flags else 4))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, struct.pack("i", load(result)))
        os._exit(Call("mkdirat", 0, 0, 0).errno())
    (number,) = struct.unpack("i", os.read(reader, 4))
    pidfd = os.pidfd_open(child)
    listener = syscall("pidfd_getfd", pidfd, number, 0)
    request = bytearray(80)  # struct seccomp_notif
    fcntl.ioctl(listener, 0xC0502100, request)  # SECCOMP_IOCTL_NOTIF_RECV
    identity, pid, _, call = struct.unpack_from("=QIIi", request)
    assert (pid, call) == (child, Call("mkdirat").number)
    fcntl.ioctl(listener, 0xC0182101, SEND.pack(identity, 0, -MARK, 0))  # SECCOMP_IOCTL_NOTIF_SEND
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == MARK
    for fd in (reader, writer, pidfd, listener):
        os.close(fd)


@pytest.mark.parametrize(
    ("names", "bits"),
    [(None, 4), ([], 0), (["TSYNC"], 0), (["LOG"], 2), (["SPEC_ALLOW"], 4), (["TSYNC", "LOG", "SPEC_ALLOW"], 6)],
)
def test_flags(names: list[str] | None, bits: int) -> None:
    """SPEC_ALLOW unless there is a list of flags; TSYNC is accepted and adds nothing; the kernel takes the rest."""
    profile = block("getpgid")
    if names is not None:
        profile["flags"] = [f"SECCOMP_FILTER_FLAG_{name}" for name in names]
    result = compiled(profile)
    assert result.flags == bits
    assert errnos(result, Call("getpgid")) == [errno.EPERM]


def test_unknown_system_calls_are_noted_and_ignored() -> None:
    """A name that nobody knows does not spoil the profile, and is told for the debug log."""
    result = compiled(block("getpgid", "no_such_call"))
    assert errnos(result, Call("getpgid")) == [errno.EPERM]
    assert result.notes == ("seccomp: unknown system calls ignored: no_such_call",)


def test_calls_newer_than_libseccomp_are_still_judged() -> None:
    """A rule for a call that libseccomp has no name for is kept, in block-lists and in allow-lists."""
    unknown = [name for name in seccomp_enosys.NUMBERS if libseccomp.seccomp_syscall_resolve_name(name) is None]
    if not unknown:
        pytest.skip("libseccomp knows every call that we do; to force it: use an older libseccomp")
    name = unknown[-1]
    call = Call(seccomp_enosys.NUMBERS[name])
    blocked = compiled(block(name, errnoRet=MARK))
    assert (errnos(blocked, call), blocked.notes) == ([MARK], ())
    allowed = allow(name)
    allowed["defaultErrnoRet"] = MARK
    assert MARK not in errnos(compiled(allowed), call)
    assert errnos(compiled(allowed), Call(1000), Call("chdir")) == [errno.ENOSYS, MARK]


def test_newer_than_the_profile_is_enosys() -> None:
    """With a denying default, a number above the largest that the profile names gives ENOSYS; a lower one is denied."""
    result = compiled(allow("setns"))
    largest = Call("setns").number
    assert errnos(result, Call("unshare"), Call(largest + 1), Call(1000)) == [errno.EPERM, errno.ENOSYS, errno.ENOSYS]


@pytest.mark.parametrize("action", ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG"])
def test_permissive_profiles_have_no_enosys(action: str) -> None:
    """Where the default lets calls through, a newer one reaches the kernel."""
    profile: Seccomp = {"defaultAction": action, "syscalls": [{"names": ["chdir"], "action": "SCMP_ACT_ERRNO"}]}
    assert errnos(compiled(profile), Call("setns", 9999), Call("chdir")) == [errno.EBADF, errno.EPERM]


def test_default_profile_of_docker() -> None:
    """The profile that most containers run under does what it says, conditions included."""
    plain = [Call("getpid"), Call("socket", 1, 1), Call("personality", 0xFFFFFFFF), Call("close", 9999)]
    denied = [Call("socket", 40, 1), Call("personality", 1), Call("setns"), Call("kexec_load"), Call("mount")]
    gone = [Call("clone3"), Call(1000), Call(9999)]
    result = errnos(compiled(DOCKER), *plain, *denied, *gone)
    assert result == [0, 0, 0, errno.EBADF, *[errno.EPERM] * 5, *[errno.ENOSYS] * 3]


def test_default_profile_of_docker_in_a_system_container() -> None:
    """After the conversion a system container's calls reach the kernel, and the dangerous ones still do not."""
    result = compiled(allow_system_calls(DOCKER))
    reached = [Call("setns", 9999), Call("mount"), Call("open_tree", 9999), Call("clone3"), Call("pidfd_open", 0, 99)]
    denied = [Call("kexec_load"), Call("init_module"), Call("swapon"), Call("socket", 40, 1), Call("personality", 1)]
    assert {errno.EPERM, errno.ENOSYS}.isdisjoint(errnos(result, *reached))
    assert errnos(result, *denied) == [errno.EPERM] * 5


@x86_64_only
def test_x32_numbers() -> None:
    """x32 calls are judged by their own names where the profile covers x32, and kill where it does not."""
    bit = 0x40000000
    covered = compiled(DOCKER)
    assert errnos(covered, Call(bit + 308), Call(bit + 2000)) == [errno.EPERM, errno.ENOSYS]  # setns, and none
    native = compiled(allow("setns"))
    assert os.WTERMSIG(outcome(native, Call(bit + 39))[1]) == signal.SIGSYS


class Int80(Call):
    """A 32-bit system call without arguments, made from this 64-bit process."""

    def errno(self) -> int:
        # push rbx; mov eax, imm32; xor ebx, ebx; int 0x80; pop rbx; ret
        code = b"\x53\xb8" + struct.pack("=I", self.number) + b"\x31\xdb\xcd\x80\x5b\xc3"
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        result: int = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
        return -result if result < 0 else 0


@x86_64_only
def test_i386_numbers() -> None:
    """32-bit calls are judged by the numbers of i386 where the profile covers it, and kill where it does not."""
    getpid, setns, unnamed = 20, 346, 2000
    result, status = outcome(compiled(DOCKER), Int80(getpid), Int80(setns), Int80(unnamed))
    assert (result[1:], status) == ([errno.EPERM, errno.ENOSYS], 0)
    assert os.WTERMSIG(outcome(compiled(allow("mprotect")), Int80(getpid))[1]) == signal.SIGSYS


def test_filter_without_rules() -> None:
    """A profile of nothing but a permissive default compiles and loads."""
    assert errnos(compiled({"defaultAction": "SCMP_ACT_ALLOW"}), Call("getpid")) == [0]


def test_a_filter_longer_than_the_kernel_takes_is_refused() -> None:
    """The kernel's limit of 4096 instructions is told before anything is launched."""
    rules: list[SeccompSyscall] = [
        {"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "args": [arg(0, "EQ", value), arg(1, "EQ", value)]}
        for value in range(1000)
    ]
    with pytest.raises(SpecError, match=r"linux.seccomp: the filter has \d+ instructions, the kernel takes 4096"):
        compiled({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})


def test_a_bad_filter_is_refused_by_the_kernel() -> None:
    """The error names the call, as every kernel error does."""
    with pytest.raises(SyscallError, match="seccomp SECCOMP_SET_MODE_FILTER: invalid argument"):
        kernel.set_mode_filter(bytes(8), 0)


def test_kernel_support_is_asked_without_side_effects() -> None:
    """Known flags and actions are told from unknown ones, and nothing is loaded by asking."""
    before = pathlib.Path("/proc/thread-self/status").read_text().split("Seccomp_filters:")[1].split()[0]
    assert kernel.flag_supported(kernel.SECCOMP_FILTER_FLAG_LOG)
    assert not kernel.flag_supported(1 << 30)
    assert kernel.action_available(kernel.SECCOMP_RET_USER_NOTIF)
    assert not kernel.action_available(0x12340000)
    after = pathlib.Path("/proc/thread-self/status").read_text().split("Seccomp_filters:")[1].split()[0]
    assert before == after

"""Profile to BPF by libseccomp, and the cache's writing half: what `plan.seccomp` needs on a cache miss only.

The tables of names here are also what `features` reports, so importing this does not load libseccomp.
"""

from __future__ import annotations

import errno
import os
from _blake2 import blake2b

from sysvisor_runc.errors import SpecError, SysvisorError, reason
from sysvisor_runc.kernel import seccomp as kernel
from sysvisor_runc.plan.seccomp_cache import CacheEntry, Filter, Library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.kernel import libseccomp
    from sysvisor_runc.spec.types import Seccomp, SeccompArg, SeccompSyscall

# libseccomp's SCMP_ACT_* have the values of the kernel's SECCOMP_RET_*.
ACTIONS = {
    "SCMP_ACT_ALLOW": kernel.SECCOMP_RET_ALLOW,
    "SCMP_ACT_ERRNO": kernel.SECCOMP_RET_ERRNO,
    "SCMP_ACT_KILL": kernel.SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": kernel.SECCOMP_RET_KILL_PROCESS,
    "SCMP_ACT_KILL_THREAD": kernel.SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_LOG": kernel.SECCOMP_RET_LOG,
    "SCMP_ACT_NOTIFY": kernel.SECCOMP_RET_USER_NOTIF,
    "SCMP_ACT_TRACE": kernel.SECCOMP_RET_TRACE,
    "SCMP_ACT_TRAP": kernel.SECCOMP_RET_TRAP,
}

# The greatest code that an action carries: the kernel cuts an errno off at MAX_ERRNO, a tracer sees 16 bits.
_CODE_MAX = {"SCMP_ACT_ERRNO": 4095, "SCMP_ACT_TRACE": kernel.SECCOMP_RET_DATA}

# SCMP_CMP_* of <seccomp.h>.
OPERATORS = {
    "SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5, "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}  # fmt: skip

# (argument, operator, value, second value), as libseccomp wants it.
Condition = tuple[int, int, int, int]

# To libseccomp, an architecture's name is what follows SCMP_ARCH_, in lower case.
ARCHITECTURES = (
    "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K", "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC", "SCMP_ARCH_PARISC64", "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64", "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64", "SCMP_ARCH_S390", "SCMP_ARCH_S390X", "SCMP_ARCH_SH", "SCMP_ARCH_SHEB", "SCMP_ARCH_X32",
    "SCMP_ARCH_X86", "SCMP_ARCH_X86_64",
)  # fmt: skip

# TSYNC is accepted and means nothing: the loader has one thread, and execve ends all others.
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": kernel.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_LOG": kernel.SECCOMP_FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": kernel.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
}

_ERRNO_DEFAULT = errno.EPERM

# libseccomp ≤ 2.5.4 makes a wrong binary tree of a filter without rules, and below some ten rules it gains nothing.
_OPTIMIZE_FROM = 32
_OPTIMIZE_BINARY_TREE = 2

_ENTRIES_MAX = 64


def supported_flags() -> list[str]:
    """The names in FLAGS that the running kernel takes."""
    return [name for name, bit in FLAGS.items() if not bit or kernel.flag_supported(bit)]


def compile(seccomp: Seccomp) -> tuple[Filter, Library]:  # noqa: A001  # always called as seccomp_compile.compile
    """The filter for `seccomp`, and the library that made it. Errors as in `plan.seccomp.compile`."""
    rules = seccomp.get("syscalls") or []
    default = _default_action(seccomp)
    _refuse_notified_write(rules)
    flags = _flags(seccomp)
    try:
        from sysvisor_runc.kernel import libseccomp
        from sysvisor_runc.plan import seccomp_enosys
    except OSError as error:
        hint = "install Debian's libseccomp2, or drop linux.seccomp from the configuration"
        raise SysvisorError(f"cannot load libseccomp: {reason(error)}", hint=hint) from error
    tokens = _architectures(seccomp)
    with libseccomp.Filter(default) as target:
        for token in tokens[1:]:
            _add_architecture(target, token)
        unknown = _add_rules(target, rules, default)
        body = _export(target)
    start = seccomp_enosys.prologue(tokens, seccomp, default, [_rule_action(i, rule) for i, rule in enumerate(rules)])
    bpf = start.bpf + body
    count = len(bpf) // kernel.SOCK_FILTER_SIZE
    if count > kernel.BPF_MAXINSNS:
        problem = f"the filter has {count} instructions, the kernel takes {kernel.BPF_MAXINSNS}"
        raise SpecError("linux.seccomp", problem, hint="fewer rules with argument conditions make it shorter")
    ignored = sorted(unknown - start.answered)
    notes = (f"seccomp: unknown system calls ignored: {' '.join(ignored)}",) if ignored else ()
    return Filter(bpf, flags, notes), Library(libseccomp.library_path())


def _default_action(seccomp: Seccomp) -> int:
    name = seccomp.get("defaultAction") or ""
    if name == "SCMP_ACT_NOTIFY":
        # It would hand write(2) to the agent too, see below.
        raise SpecError("linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY cannot be used as default action")
    code = seccomp.get("defaultErrnoRet")
    return _action("linux.seccomp.defaultAction", name, "linux.seccomp.defaultErrnoRet", code)


def _rule_action(index: int, rule: SeccompSyscall) -> int:
    path = f"linux.seccomp.syscalls[{index}]"
    return _action(f"{path}.action", rule.get("action") or "", f"{path}.errnoRet", rule.get("errnoRet"))


def _action(path: str, name: str, code_path: str, code: int | None) -> int:
    action = ACTIONS.get(name)
    if action is None:
        raise SpecError(path, f"{name!r} is not a seccomp action", hint=f"one of {', '.join(ACTIONS)}")
    greatest = _CODE_MAX.get(name)
    if greatest is None:
        if code is not None:  # the runtime specification wants an error here
            raise SpecError(code_path, f"{name} takes no errno")
        return action
    if code is None:
        code = _ERRNO_DEFAULT
    if not 0 <= code <= greatest:
        raise SpecError(code_path, f"{code} is not between 0 and {greatest}")
    return action | code


def _refuse_notified_write(rules: list[SeccompSyscall]) -> None:
    """The child tells the listener's number by write(2): if that waited for the agent, the agent would never come."""
    for index, rule in enumerate(rules):
        if rule.get("action") == "SCMP_ACT_NOTIFY" and "write" in (rule.get("names") or ()):
            path = f"linux.seccomp.syscalls[{index}]"
            raise SpecError(path, "SCMP_ACT_NOTIFY cannot be used for the write syscall")


def _flags(seccomp: Seccomp) -> int:
    """SECCOMP_FILTER_FLAG_* bits: those named, or SPEC_ALLOW where there is no list (an empty one means none)."""
    names = seccomp.get("flags")
    bits = kernel.SECCOMP_FILTER_FLAG_SPEC_ALLOW if names is None else 0
    for index, name in enumerate(names or ()):
        bit = FLAGS.get(name)
        path = f"linux.seccomp.flags[{index}]"
        if bit is None:
            raise SpecError(path, f"{name!r} is not a known seccomp flag", hint=f"one of {', '.join(FLAGS)}")
        if bit and not kernel.flag_supported(bit):
            raise SpecError(path, f"the kernel does not support {name}")
        bits |= bit
    if any(rule.get("action") == "SCMP_ACT_NOTIFY" for rule in seccomp.get("syscalls") or ()):
        if not kernel.action_available(kernel.SECCOMP_RET_USER_NOTIF):
            raise SpecError("linux.seccomp", "seccomp notify unsupported: it needs Linux 5.0")
        bits |= kernel.SECCOMP_FILTER_FLAG_NEW_LISTENER
    elif bits & kernel.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV:
        problem = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY"
        raise SpecError("linux.seccomp.flags", problem)
    return bits


def _architectures(seccomp: Seccomp) -> list[int]:
    """The tokens that the filter covers: the native one, which no profile can leave out, then the others named."""
    from sysvisor_runc.kernel import libseccomp

    tokens = [libseccomp.seccomp_arch_native()]
    for index, name in enumerate(seccomp.get("architectures") or ()):
        path = f"linux.seccomp.architectures[{index}]"
        if name not in ARCHITECTURES:
            raise SpecError(path, f"{name!r} is not a known architecture", hint=f"one of {', '.join(ARCHITECTURES)}")
        token = libseccomp.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower())
        if not token:
            version = ".".join(map(str, libseccomp.seccomp_version()))
            raise SpecError(path, f"libseccomp {version} does not know {name}")
        if token not in tokens:
            tokens.append(token)
    return tokens


def _add_architecture(target: libseccomp.Filter, token: int) -> None:
    try:
        target.arch_add(token)
    except OSError as error:
        # EDOM: one filter cannot cover both byte orders.
        raise SpecError("linux.seccomp.architectures", f"cannot be in one filter: {reason(error)}") from error


def _add_rules(target: libseccomp.Filter, rules: list[SeccompSyscall], default: int) -> set[str]:
    """Add all `rules`; returns the system calls that libseccomp does not know, on any architecture."""
    from sysvisor_runc.kernel.libseccomp import SCMP_FLTATR_CTL_OPTIMIZE, seccomp_syscall_resolve_name

    unknown = set()
    if sum(len(rule.get("names") or ()) for rule in rules) > _OPTIMIZE_FROM:
        target.attr_set(SCMP_FLTATR_CTL_OPTIMIZE, _OPTIMIZE_BINARY_TREE)
    for index, rule in enumerate(rules):
        path = f"linux.seccomp.syscalls[{index}]"
        action = _rule_action(index, rule)
        alternatives = _alternatives(path, rule.get("args") or [])
        for name in rule.get("names") or ():
            if not name:
                raise SpecError(f"{path}.names", "an empty string is not a system call")
            number = seccomp_syscall_resolve_name(name)
            if number is None:
                unknown.add(name)
            elif action != default:  # libseccomp refuses a rule that changes nothing
                _add_rule(target, path, name, action, number, alternatives)
    return unknown


def _add_rule(
    target: libseccomp.Filter, path: str, name: str, action: int, number: int, alternatives: list[list[Condition]]
) -> None:
    try:
        for conditions in alternatives:
            target.rule_add_array(action, number, conditions)
    except FileExistsError as error:
        raise SpecError(path, f"contradicts an earlier rule for {name}") from error
    except OSError as error:
        raise SpecError(path, f"cannot add the rule for {name}: {reason(error)}") from error


def _alternatives(path: str, args: list[SeccompArg]) -> list[list[Condition]]:
    """The lists of conditions, each a rule of its own, that `args` stands for.

    All conditions must hold; but where two of them look at the same argument each is an alternative: profiles have
    been written to that since libseccomp took one condition for an argument only.
    """
    conditions = [_condition(f"{path}.args[{index}]", arg) for index, arg in enumerate(args)]
    if len({condition[0] for condition in conditions}) < len(conditions):
        return [[condition] for condition in conditions]
    return [conditions]


def _condition(path: str, arg: SeccompArg) -> Condition:
    operator = OPERATORS.get(arg["op"])
    if operator is None:
        raise SpecError(f"{path}.op", f"{arg['op']!r} is not an operator", hint=f"one of {', '.join(OPERATORS)}")
    if not 0 <= arg["index"] <= 5:
        raise SpecError(f"{path}.index", f"{arg['index']} is not between 0 and 5")
    value, second = arg["value"], arg.get("valueTwo") or 0
    if not 0 <= value < 1 << 64 or not 0 <= second < 1 << 64:
        raise SpecError(path, "a value does not fit 64 bits")
    # With SCMP_CMP_MASKED_EQ `value` is the mask and `valueTwo` what must remain; no other operator reads the second.
    return arg["index"], operator, value, second


def _export(target: libseccomp.Filter) -> bytes:
    try:
        return target.export_bpf()
    except OSError as error:
        raise SysvisorError(f"cannot compile the seccomp filter: {reason(error)}") from error


def store(path: str, key: bytes, result: Filter, library: Library) -> None:
    """Write the cache file for `key`; failing to changes nothing but the time that the next launch takes."""
    name, notes = os.fsencode(library.path), "\n".join(result.notes).encode()
    sizes = (len(name), len(notes), len(result.bpf))
    body = CacheEntry.HEAD.pack(key, result.flags, *sizes, *library.identity) + name + notes + result.bpf
    data = CacheEntry.MAGIC + blake2b(body, digest_size=32).digest() + body
    directory = os.path.dirname(path)
    temporary = f"{directory}/.{os.getpid()}"
    try:
        # Not makedirs: what is above is the state root, and the mode of that is for others to say.
        if not os.path.isdir(directory):
            os.mkdir(directory, 0o700)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, data)  # a short write leaves a file whose checksum is wrong
        finally:
            os.close(fd)
        os.rename(temporary, path)
        _prune(directory)
    except OSError:
        _remove(temporary)


def _prune(directory: str) -> None:
    """Keep the newest entries: profiles change, and nothing else ever takes old ones away."""
    with os.scandir(directory) as entries:
        files = [(entry.stat(follow_symlinks=False).st_mtime_ns, entry.path) for entry in entries]
    for _, path in sorted(files)[:-_ENTRIES_MAX]:
        _remove(path)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass

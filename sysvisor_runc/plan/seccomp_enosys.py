"""BPF in front of libseccomp's: ENOSYS for system calls newer than the profile, and those newer than libseccomp.

A program that tries a new system call falls back to an old one on ENOSYS, but gives up on the EPERM that a profile
written before the call existed answers with. And a rule for a call that the installed libseccomp has no name for
would be dropped in silence, which in a block-list opens what the profile closes.
"""

from __future__ import annotations

import errno
import struct

from sysvisor_runc.kernel import libseccomp
from sysvisor_runc.kernel.seccomp import (
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO,
    SECCOMP_RET_LOG,
    SECCOMP_RET_TRACE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Seccomp

# Since Linux 5.1 every architecture gives a new system call the same number, above its own base.
NUMBERS = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "pidfd_open": 434, "clone3": 435, "close_range": 436, "openat2": 437, "pidfd_getfd": 438, "faccessat2": 439,
    "process_madvise": 440, "epoll_pwait2": 441, "mount_setattr": 442, "quotactl_fd": 443,
    "landlock_create_ruleset": 444, "landlock_add_rule": 445, "landlock_restrict_self": 446, "memfd_secret": 447,
    "process_mrelease": 448, "futex_waitv": 449, "set_mempolicy_home_node": 450, "cachestat": 451, "fchmodat2": 452,
    "map_shadow_stack": 453, "futex_wake": 454, "futex_wait": 455, "futex_requeue": 456, "statmount": 457,
    "listmount": 458, "lsm_get_self_attr": 459, "lsm_set_self_attr": 460, "lsm_list_modules": 461, "mseal": 462,
    "setxattrat": 463, "getxattrat": 464, "listxattrat": 465, "removexattrat": 466, "open_tree_attr": 467,
    "file_getattr": 468, "file_setattr": 469, "listns": 470,
}  # fmt: skip

_X32_BIT = 0x40000000
_BASES = {
    libseccomp.SCMP_ARCH_X32: _X32_BIT,
    libseccomp.SCMP_ARCH_MIPS: 4000, libseccomp.SCMP_ARCH_MIPSEL: 4000,
    libseccomp.SCMP_ARCH_MIPS64: 5000, libseccomp.SCMP_ARCH_MIPSEL64: 5000,
    libseccomp.SCMP_ARCH_MIPS64N32: 6000, libseccomp.SCMP_ARCH_MIPSEL64N32: 6000,
}  # fmt: skip

# What these let through, a newer kernel may do: the profile trusts the program, or a tracer decides.
_PERMISSIVE = (SECCOMP_RET_ALLOW, SECCOMP_RET_LOG, SECCOMP_RET_TRACE)
_ACTION_MASK = 0xFFFF0000
_ENOSYS = SECCOMP_RET_ERRNO | errno.ENOSYS

# <linux/bpf_common.h>; all operands are constants, all loads 32 bits of struct seccomp_data.
_BPF_LD_W_ABS = 0x20
_BPF_JA = 0x05
_BPF_JEQ = 0x15
_BPF_JGT = 0x25
_BPF_JGE = 0x35
_BPF_RET = 0x06
_DATA_NR = 0
_DATA_ARCH = 4

Instruction = tuple[int, int, int, int]


class Prologue:
    """`bpf` to put in front of a filter (it ends by falling into it), and the names that it `answered`."""

    __slots__ = ("answered", "bpf")

    def __init__(self, instructions: list[Instruction], answered: set[str]) -> None:
        # struct sock_filter { __u16 code; __u8 jt, jf; __u32 k; }, in native byte order
        self.bpf = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
        self.answered = answered


def prologue(tokens: list[int], seccomp: Seccomp, default: int, actions: list[int]) -> Prologue:
    """What to answer before libseccomp's filter, for the architectures `tokens`.

    `default` and `actions` (one per rule) are SECCOMP_RET_* values. Rules with argument conditions on calls that
    libseccomp does not know are not answered.
    """
    rules = seccomp.get("syscalls") or []
    named = [name for rule in rules for name in rule.get("names") or ()]
    verdicts: dict[str, int] = {}
    for rule, action in zip(rules, actions, strict=True):
        if not rule.get("args"):
            for name in rule.get("names") or ():
                verdicts.setdefault(name, action)
    stub = default & _ACTION_MASK not in _PERMISSIVE and default != _ENOSYS
    answered: set[str] = set()
    checks: dict[int, list[Instruction]] = {}
    for token in tokens:
        checks[token] = _checks(token, named, verdicts, default, stub, answered)
    return Prologue(_dispatch(checks), answered)


def _checks(
    token: int, named: list[str], verdicts: dict[str, int], default: int, stub: bool, answered: set[str]
) -> list[Instruction]:
    """What decides on a number in the accumulator; undecided, it falls through. Adds to `answered`."""
    base = _BASES.get(token, 0)
    largest = -1
    result: list[Instruction] = []
    if stub and token in (libseccomp.SCMP_ARCH_S390, libseccomp.SCMP_ARCH_S390X):
        # There a number above 255 arrives in a register; if the kernel does not know it, the filter sees 0, the long
        # gone setup(2).
        result += _return_if_equal(0, _ENOSYS)
    for name in dict.fromkeys(named):
        number = libseccomp.seccomp_syscall_resolve_name_arch(token, name)
        if number is None and name in NUMBERS and name in verdicts:
            number = base + NUMBERS[name]
            answered.add(name)
            if verdicts[name] != default:
                result += _return_if_equal(number, verdicts[name])
        if number is not None:
            largest = max(largest, number)
    if stub and largest >= 0:
        # -1 is what a tracer sets to skip the call.
        result += [(_BPF_JGT, 0, 2, largest), (_BPF_JEQ, 1, 0, 0xFFFFFFFF), (_BPF_RET, 0, 0, _ENOSYS)]
    return result


def _return_if_equal(number: int, action: int) -> list[Instruction]:
    return [(_BPF_JEQ, 0, 1, number), (_BPF_RET, 0, 0, action)]


def _dispatch(checks: dict[int, list[Instruction]]) -> list[Instruction]:
    """Load the architecture, branch to its checks, and from their end to the end of all."""
    sections: list[tuple[int, list[Instruction]]] = []
    for token, own in checks.items():
        if token == libseccomp.SCMP_ARCH_X32:
            if libseccomp.SCMP_ARCH_X86_64 not in checks:
                sections.append((libseccomp.SCMP_ARCH_X86_64, _by_mode([], own)))
        elif token == libseccomp.SCMP_ARCH_X86_64:
            sections.append((token, _by_mode(own, checks.get(libseccomp.SCMP_ARCH_X32, []))))
        else:
            sections.append((token, own))
    result: list[Instruction] = []
    for audit_arch, own in reversed(sections):
        if own:
            body = [(_BPF_LD_W_ABS, 0, 0, _DATA_NR), *own, (_BPF_JA, 0, 0, len(result))]
            result = [(_BPF_JEQ, 1, 0, audit_arch), (_BPF_JA, 0, 0, len(body)), *body, *result]
    return [(_BPF_LD_W_ABS, 0, 0, _DATA_ARCH), *result] if result else []


def _by_mode(x86_64: list[Instruction], x32: list[Instruction]) -> list[Instruction]:
    """The checks of either ABI, told apart by bit 30 of the number: libseccomp's filter judges an x32 number that no
    architecture of the profile covers."""
    if not x86_64 and not x32:
        return []
    return [(_BPF_JGE, 0, 1, _X32_BIT), (_BPF_JA, 0, 0, len(x86_64) + 1), *x86_64, (_BPF_JA, 0, 0, len(x32)), *x32]

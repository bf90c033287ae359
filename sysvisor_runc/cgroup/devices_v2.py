"""Device rules on cgroup v2: an eBPF program of type CGROUP_DEVICE, assembled here and attached to the cgroup.

`program` is pure. The kernel asks the program about each mknod and each open of a device node: 1 allows, 0 is EPERM.
"""

from __future__ import annotations

import os

from sysvisor_runc.cgroup.device_rule import ANY
from sysvisor_runc.kernel import bpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysvisor_runc.cgroup.device_rule import Rule

# Opcodes (Documentation/bpf/standardization/instruction-set.rst), 64-bit unless they say otherwise.
_LOAD_WORD = 0x61  # dst = *(u32 *)(src + off)
_MOVE = 0xB7  # dst = imm
_COPY = 0xBF  # dst = src
_AND = 0x57  # dst &= imm
_SHIFT_RIGHT = 0x77  # dst >>= imm
_JUMP_IF_EQUAL = 0x15
_JUMP_UNLESS_EQUAL = 0x55
_EXIT = 0x95

_R0, _CTX, _TYPE, _ACCESS, _MAJOR, _MINOR = 0, 1, 2, 3, 4, 5

_TYPES = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_DEV_CHAR
_ALL = 7
_LICENSE = b"Apache-2.0"  # no helper is called, so none asks for the GPL


def program(rules: Sequence[Rule], *, allow: bool) -> bytes:
    """The instructions that enforce `rules`; `allow`: what happens to a device that none of them names.

    struct bpf_cgroup_dev_ctx is u32 access_type (access << 16 | type), major, minor. Rules are tried last to first:
    each takes the accesses that it decides about; a denied one ends it, and so does the last allowed one. Unlike v1,
    accesses may be gathered from several rules, and a narrow rule may overrule a wider one in either direction.
    """
    code = [
        bpf.insn(_LOAD_WORD, _TYPE, _CTX, 0),
        bpf.insn(_COPY, _ACCESS, _TYPE),
        bpf.insn(_SHIFT_RIGHT, _ACCESS, imm=16),
        bpf.insn(_AND, _TYPE, imm=0xFFFF),
        bpf.insn(_LOAD_WORD, _MAJOR, _CTX, 4),
        bpf.insn(_LOAD_WORD, _MINOR, _CTX, 8),
    ]
    for rule in reversed(rules):
        code += _one_rule(rule)
    code += _answer(allow)
    return b"".join(code)


def _answer(allow: bool) -> list[bytes]:
    return [bpf.insn(_MOVE, _R0, imm=int(allow)), bpf.insn(_EXIT)]


def _one_rule(rule: Rule) -> list[bytes]:
    if rule.mask == _ALL:
        decide = []
    elif rule.allow:
        decide = [(_AND, _ACCESS, ~rule.mask & _ALL), (_JUMP_UNLESS_EQUAL, _ACCESS, 0)]
    else:
        decide = [(_COPY, _R0, _ACCESS), (_AND, _R0, rule.mask), (_JUMP_IF_EQUAL, _R0, 0)]
    steps = [(_JUMP_UNLESS_EQUAL, _TYPE, _TYPES[rule.type])]
    if rule.major != ANY:
        steps.append((_JUMP_UNLESS_EQUAL, _MAJOR, rule.major))
    if rule.minor != ANY:
        steps.append((_JUMP_UNLESS_EQUAL, _MINOR, rule.minor))
    steps += decide
    answer = _answer(rule.allow)
    length = len(steps) + len(answer)
    code = []
    for index, (opcode, register, operand) in enumerate(steps):
        if opcode in (_JUMP_IF_EQUAL, _JUMP_UNLESS_EQUAL):  # past the end of this rule
            code.append(bpf.insn(opcode, register, off=length - index - 1, imm=operand))
        elif opcode == _COPY:
            code.append(bpf.insn(opcode, register, operand))
        else:
            code.append(bpf.insn(opcode, register, imm=operand))
    return code + answer


def attach(path: str, rules: Sequence[Rule], *, allow: bool) -> None:
    """Put the rules in force on the cgroup at `path`, in place of earlier ones, with no moment without any.

    Raises:
        OSError: EPERM without the capabilities (a user namespace never has them); EINVAL on kernels before 4.15.
    """
    cgroup = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        new = bpf.prog_load(bpf.BPF_PROG_TYPE_CGROUP_DEVICE, program(rules, allow=allow), _LICENSE)
        try:
            _replace(cgroup, new)
        finally:
            os.close(new)
    finally:
        os.close(cgroup)


def _replace(cgroup: int, new: int) -> None:
    flags, ids = bpf.prog_query(cgroup, bpf.BPF_CGROUP_DEVICE)
    if ids and not flags & bpf.BPF_F_ALLOW_MULTI:
        # Attached by someone who allows one program only: with the same flags, the new one takes its place.
        bpf.prog_attach(cgroup, new, bpf.BPF_CGROUP_DEVICE, flags)
        return
    old = [bpf.prog_get_fd_by_id(number) for number in ids]
    try:
        if len(old) == 1:
            wanted = bpf.BPF_F_ALLOW_MULTI | bpf.BPF_F_REPLACE
            try:
                bpf.prog_attach(cgroup, new, bpf.BPF_CGROUP_DEVICE, wanted, old[0])
                return
            except OSError:  # before Linux 5.6; what follows is as safe, since all attached programs must allow
                pass
        bpf.prog_attach(cgroup, new, bpf.BPF_CGROUP_DEVICE, bpf.BPF_F_ALLOW_MULTI)
        for fd in old:
            bpf.prog_detach(cgroup, fd, bpf.BPF_CGROUP_DEVICE)
    finally:
        for fd in old:
            os.close(fd)

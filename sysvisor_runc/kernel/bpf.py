"""bpf(2) for cgroup programs: PROG_LOAD, PROG_ATTACH, PROG_DETACH, PROG_QUERY, PROG_GET_FD_BY_ID, and instructions.

Wrappers only, no policy. Loaded on cgroup v2 alone.
"""

from __future__ import annotations

import struct

from sysvisor_runc.kernel.syscall import address, buffer, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.kernel.syscall import Buffer

# include/uapi/linux/bpf.h: enum bpf_cmd, bpf_prog_type, bpf_attach_type, attach flags
BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_DETACH = 9
BPF_PROG_GET_FD_BY_ID = 13
BPF_PROG_QUERY = 16

BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6

BPF_F_ALLOW_MULTI = 1 << 1
BPF_F_REPLACE = 1 << 2  # since Linux 5.6

_MOST_PROGRAMS = 64  # BPF_CGROUP_MAX_PROGS


def insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    """One struct bpf_insn: u8 code, u4 dst_reg, u4 src_reg, s16 off, s32 imm."""
    return struct.pack("=BBhi", code, dst | src << 4, off, imm)


def prog_load(prog_type: int, insns: bytes, license_name: bytes) -> int:
    """BPF_PROG_LOAD: a close-on-exec fd of the program.

         0  u32 prog_type, insn_cnt
         8  u64 insns, license         addresses
        24  u32 log_level, log_size
        32  u64 log_buf
        40  u32 kern_version, prog_flags

    Raises:
        OSError: EINVAL or EACCES, the verifier says no; EPERM without CAP_BPF.
    """
    code = _filled(insns)
    text = _filled(license_name + b"\0")
    attr = struct.pack("=IIQQIIQII", prog_type, len(insns) // 8, address(code), address(text), 0, 0, 0, 0, 0)
    return _bpf(BPF_PROG_LOAD, attr, "BPF_PROG_LOAD")


def prog_attach(target_fd: int, prog_fd: int, attach_type: int, flags: int, replace_fd: int = 0) -> None:
    """BPF_PROG_ATTACH to the cgroup behind `target_fd`; with BPF_F_REPLACE in place of the program `replace_fd`."""
    attr = struct.pack("=IIIII", target_fd, prog_fd, attach_type, flags, replace_fd)
    _bpf(BPF_PROG_ATTACH, attr, "BPF_PROG_ATTACH")


def prog_detach(target_fd: int, prog_fd: int, attach_type: int) -> None:
    """BPF_PROG_DETACH of one program from the cgroup behind `target_fd`."""
    _bpf(BPF_PROG_DETACH, struct.pack("=III", target_fd, prog_fd, attach_type), "BPF_PROG_DETACH")


def prog_query(target_fd: int, attach_type: int) -> tuple[int, list[int]]:
    """BPF_PROG_QUERY: the attach flags in force on this very cgroup and the ids of its programs, oldest first.

    0  u32 target_fd, attach_type, query_flags, attach_flags
    16  u64 prog_ids                 address of the answer
    24  u32 prog_cnt                 room there, then how many there are
    """
    ids = buffer(4 * _MOST_PROGRAMS)
    attr = _filled(struct.pack("=IIIIQII", target_fd, attach_type, 0, 0, address(ids), _MOST_PROGRAMS, 0))
    syscall("bpf", BPF_PROG_QUERY, attr, len(bytes(attr)), operand="BPF_PROG_QUERY")
    answer = bytes(attr)
    (flags,) = struct.unpack_from("=I", answer, 12)
    (count,) = struct.unpack_from("=I", answer, 24)
    return flags, list(struct.unpack_from(f"={count}I", bytes(ids)))


def prog_get_fd_by_id(prog_id: int) -> int:
    """BPF_PROG_GET_FD_BY_ID: an fd of a loaded program. ENOENT where it is gone."""
    return _bpf(BPF_PROG_GET_FD_BY_ID, struct.pack("=III", prog_id, 0, 0), "BPF_PROG_GET_FD_BY_ID")


def _bpf(command: int, attr: bytes, name: str) -> int:
    return syscall("bpf", command, attr, len(attr), operand=name)


def _filled(data: bytes) -> Buffer:
    array = buffer(len(data))
    memoryview(array).cast("B")[:] = data
    return array

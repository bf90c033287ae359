"""statfs(2) and fstatfs(2), for the one field that os.statvfs leaves out: which file system it is.

Wrappers only, no policy.
"""

from __future__ import annotations

from sysvisor_runc.kernel.syscall import buffer, c_path, syscall

# include/uapi/linux/magic.h
CGROUP_SUPER_MAGIC = 0x27E0EB
CGROUP2_SUPER_MAGIC = 0x63677270
DEVPTS_SUPER_MAGIC = 0x1CD1
OVERLAYFS_SUPER_MAGIC = 0x794C7630
PROC_SUPER_MAGIC = 0x9FA0

_SIZE = 120  # struct statfs on 64-bit architectures; f_type is its first word


def statfs(path: str) -> int:
    """The f_type of the file system that holds `path`. Raises OSError."""
    buf = buffer(_SIZE)
    syscall("statfs", c_path(path), buf, operand=path)
    return int.from_bytes(bytes(buf)[:8], "little")


def fstatfs(fd: int) -> int:
    """The f_type of the file system that `fd` lies in. Raises OSError."""
    buf = buffer(_SIZE)
    syscall("fstatfs", fd, buf, operand=f"fd {fd}")
    return int.from_bytes(bytes(buf)[:8], "little")

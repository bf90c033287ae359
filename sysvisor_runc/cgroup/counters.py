"""Reading numbers out of a cgroup's control files, in each of the forms that the kernel writes them. A file that is not
there gives nothing."""

from __future__ import annotations

import errno
import os

from sysvisor_runc.cgroup.file import GONE, failure, read

UNLIMITED = (1 << 64) - 1  # "max" of v2, as a number
# What a file that is there says when its part of the kernel is off: memory of a dying cgroup, pressure with psi=0.
_OFF = (*GONE, errno.EOPNOTSUPP)


def text(path: str, file: str) -> str | None:
    """The file's text; None where it, the cgroup, or what it would tell of is not there.

    Raises:
        CgroupError: it is there and cannot be read.
    """
    try:
        return read(f"{path}/{file}")
    except OSError as e:
        if e.errno in _OFF:
            return None
        raise failure("read", f"{path}/{file}", e) from None


def number(path: str, file: str) -> int | None:
    """A file of one number; `max` is UNLIMITED, what is negative 0."""
    value = text(path, file)
    return None if value is None else parse(value)


def parse(value: str) -> int:
    """`max`, or a number; 0 of anything else."""
    value = value.strip()
    if value == "max":
        return UNLIMITED
    return int(value) if value.isdecimal() else 0


def keyed(path: str, file: str) -> dict[str, int]:
    """A flat keyed file, `key value` per line; empty where it is not there."""
    table = {}
    for line in (text(path, file) or "").splitlines():
        key, _, value = line.partition(" ")
        if key and value:
            table[key] = parse(value)
    return table


def nested(path: str, file: str) -> list[tuple[str, dict[str, str]]]:
    """A nested keyed file, `name key=value key=value` per line, in the order of the file."""
    rows = []
    for line in (text(path, file) or "").splitlines():
        name, *pairs = line.split()
        rows.append((name, dict(pair.split("=", 1) for pair in pairs if "=" in pair)))
    return rows


def ranges(path: str, file: str) -> list[int]:
    """A list of CPUs or nodes such as `0-2,7`, one by one."""
    found: list[int] = []
    for part in (text(path, file) or "").split(","):
        first, _, last = part.strip().partition("-")
        if first.isdecimal():
            found += range(int(first), int(last if last.isdecimal() else first) + 1)
    return found


def page_sizes() -> list[str]:
    """The sizes of huge pages here as the names of control files have them: 2MB, 1GB (kernel: hugetlb_cgroup.c)."""
    try:
        names = os.listdir("/sys/kernel/mm/hugepages")
    except OSError:
        return []
    sizes = sorted(int(name[10:-2]) for name in names if name.startswith("hugepages-") and name[10:-2].isdecimal())
    return [
        f"{size >> 20}GB" if size >= 1 << 20 else f"{size >> 10}MB" if size >= 1 << 10 else f"{size}KB"
        for size in sizes
    ]

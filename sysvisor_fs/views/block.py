"""What a container has read from and written to which disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sysvisor_fs.views import files
from sysvisor_fs.views.hierarchy import home

if TYPE_CHECKING:
    from sysvisor_fs.node import Container

# Newest first; the throttle's counters are there with every scheduler.
_V1 = ("blkio.bfq", "blkio.throttle", "blkio")


class Traffic(NamedTuple):
    """Counts of one disk: operations and bytes read, written and discarded."""

    reads: int = 0
    read_bytes: int = 0
    writes: int = 0
    written_bytes: int = 0
    discards: int = 0
    discarded_bytes: int = 0


_V2 = {b"rios": "reads", b"rbytes": "read_bytes", b"wios": "writes", b"wbytes": "written_bytes", b"dios": "discards",
       b"dbytes": "discarded_bytes"}  # fmt: skip
_V1_KINDS = {b"Read": ("reads", "read_bytes"), b"Write": ("writes", "written_bytes"),
             b"Discard": ("discards", "discarded_bytes")}  # fmt: skip


def traffic(container: Container) -> dict[bytes, Traffic] | None:
    """By `major:minor`; None where nobody counts."""
    place = home(container, "blkio")
    if place is None:
        return None
    if place.v2:
        text = files.read_or_none(f"{place.path}/io.stat")
        return None if text is None else parse_io_stat(text)
    found = [parse_blkio(*both) for prefix in _V1 if (both := _both(place.path, prefix)) is not None]
    # Which of them counts depends on each disk's scheduler, and the other one says 0.
    merged: dict[bytes, Traffic] = {}
    for one in found:
        for device, counts in one.items():
            merged[device] = Traffic(*map(max, merged.get(device, Traffic()), counts))
    return merged if found else None


def _both(path: str, prefix: str) -> tuple[bytes, bytes] | None:
    count = files.read_or_none(f"{path}/{prefix}.io_serviced_recursive")
    size = files.read_or_none(f"{path}/{prefix}.io_service_bytes_recursive")
    return None if count is None or size is None else (count, size)


def parse_io_stat(text: bytes) -> dict[bytes, Traffic]:
    """v2: `8:0 rbytes=1 wbytes=2 …` a line."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        pairs = (word.partition(b"=") for word in words[1:])
        numbers = {_V2[name]: int(value) for name, _, value in pairs if name in _V2 and value.isdigit()}
        if numbers:
            found[words[0]] = Traffic(**numbers)
    return found


def parse_blkio(counts: bytes, sizes: bytes) -> dict[bytes, Traffic]:
    """v1: two files with `8:0 Read 1` a line, the sum at the end."""
    found: dict[bytes, dict[str, int]] = {}
    for column, text in enumerate((counts, sizes)):
        for line in text.splitlines():
            words = line.split()
            if len(words) == 3 and words[1] in _V1_KINDS:
                found.setdefault(words[0], {})[_V1_KINDS[words[1]][column]] = int(words[2])
    return {device: Traffic(**numbers) for device, numbers in found.items()}

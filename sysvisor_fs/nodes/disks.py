"""/proc/diskstats: the disks that a container has used, and how much."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sysvisor_fs.node import FOREVER, File
from sysvisor_fs.views import files
from sysvisor_fs.views.block import traffic

if TYPE_CHECKING:
    from sysvisor_fs.node import Caller, Container
    from sysvisor_fs.views.block import Traffic

SECTOR = 512
_AGE = 1.0  # seconds; only names and numbers of disks are taken


def diskstats(host: bytes, used: dict[bytes, Traffic]) -> bytes:
    """The host's lines of disks that were used, in its order and with as many columns. Times are not counted: 0."""
    lines = []
    for line in host.splitlines():
        words = line.split()
        counts = used.get(b"%s:%s" % (words[0], words[1]))
        if counts is None or not any(counts):
            continue
        columns = [
            counts.reads, 0, counts.read_bytes // SECTOR, 0,
            counts.writes, 0, counts.written_bytes // SECTOR, 0,
            0, 0, 0,
            counts.discards, 0, counts.discarded_bytes // SECTOR, 0,
            0, 0,
        ][: len(words) - 3]  # fmt: skip
        numbers = b" ".join(b"%d" % column for column in columns)
        lines.append(b"%4d %7d %s %s\n" % (int(words[0]), int(words[1]), words[2], numbers))
    return b"".join(lines)


class Diskstats(File):
    """/proc/diskstats."""

    valid = FOREVER

    def read(self, container: Container, caller: Caller) -> bytes:
        """Nothing where nobody counts by container."""
        return diskstats(files.host("/proc/diskstats", _AGE), traffic(container) or {})

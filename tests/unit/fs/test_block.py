"""A container's disks, from recorded cgroups of both versions."""

import pathlib

from sysvisor_fs.nodes.disks import diskstats
from sysvisor_fs.views.block import Traffic, traffic
from tests.support import fs_cgroup as cg

HOST = (
    b"   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    b" 254       0 vda 177183 23012 8143634 114928 160162 179824 14767768 229339 0 66536 384217 122911 95 7373504 "
    b"29252 32595 10696\n"
    b" 254       1 vda1 1 2 3 4 5 6 7 8 9 10 11\n"
)
IO_STAT = (
    "254:0 rbytes=4096 wbytes=1024 rios=3 wios=2 dbytes=512 dios=1\n"
    "7:0 \n254:1 rbytes=512 wbytes=0 rios=1 wios=0 cost.usage=1.5"
)


def test_v2(tmp_path: pathlib.Path) -> None:
    """io.stat's numbers, in sectors; as many columns as the host's line has; nothing of disks that were not used."""
    used = traffic(cg.container(unified=cg.make(tmp_path, "a", io__stat=IO_STAT)))
    assert used is not None
    assert diskstats(HOST, used) == (
        b" 254       0 vda 3 0 8 0 2 0 2 0 0 0 0 1 0 1 0 0 0\n 254       1 vda1 1 0 1 0 0 0 0 0 0 0 0\n"
    )


def test_v1_takes_the_scheduler_that_counts(tmp_path: pathlib.Path) -> None:
    """Of the throttle's and bfq's files one says 0, by disk."""
    zero = "254:0 Read 0\n254:0 Write 0\n254:0 Total 0\nTotal 0"
    path = cg.make(tmp_path, "a")
    for name, text in {
        "blkio.bfq.io_serviced_recursive": zero,
        "blkio.bfq.io_service_bytes_recursive": zero,
        "blkio.throttle.io_serviced_recursive": "254:0 Read 3\n254:0 Write 2\n254:0 Discard 1\nTotal 6",
        "blkio.throttle.io_service_bytes_recursive": "254:0 Read 4096\n254:0 Write 1024\n254:0 Discard 512\nTotal 1",
    }.items():
        (path / name).write_text(text)
    assert traffic(cg.container(blkio=path)) == {b"254:0": Traffic(3, 4096, 2, 1024, 1, 512)}


def test_nobody_counts(tmp_path: pathlib.Path) -> None:
    """Without a controller there is nothing to tell, rather than the host's traffic."""
    assert traffic(cg.container(unified=cg.make(tmp_path, "a"))) is None
    assert diskstats(HOST, {}) == b""

"""The traffic of network interfaces, out of the kernel's own table."""

import os
import pathlib

from sysvisor_runc.state.interfaces import interfaces, parse
from sysvisor_runc.state.process import start_time

TABLE = b"""Inter-|   Receive                     |  Transmit
 face |bytes    packets errs drop ...   |bytes    packets errs drop ...
    lo:     100       1    0    0    0     0   0   0      100       1    0    0    0     0       0   0
  eth0:11 12 13 14 15 16 17 18 21 22 23 24 25 26 27 28
caf\xc3\xa9\xff: 1 0 0 0 0 0 0 0 2 0 0 0 0 0 0 0
broken: 1 2 3
"""


def test_numbers_by_their_names() -> None:
    """Received and sent as the container sees it; lo, and what makes no sense, left out."""
    eth0, strange = parse(TABLE)
    assert eth0 == {
        "Name": "eth0", "RxBytes": 11, "RxPackets": 12, "RxErrors": 13, "RxDropped": 14,
        "TxBytes": 21, "TxPackets": 22, "TxErrors": 23, "TxDropped": 24,
    }  # fmt: skip
    assert strange["Name"] == "café\ufffd"


def test_the_hosts_interfaces_are_nobodys_own() -> None:
    """A process in our network namespace has none."""
    assert interfaces(os.getpid(), start_time(os.getpid())) is None
    assert parse(pathlib.Path("/proc/self/net/dev").read_bytes()) is not None

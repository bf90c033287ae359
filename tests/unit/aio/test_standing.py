"""The standing of a resident process, with and without the library for it."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
if {without}:
    sys.modules["prctl"] = None
from sysvisor_runc.aio.standing import stand
stand("sysvisor-superv")
import os
print(open("/proc/self/comm").read().strip())
pid = os.fork()
if not pid:
    if os.fork():
        os._exit(0)
    os.read(0, 1)
    os._exit(7)
os.waitpid(pid, 0)
sys.stdout.flush()
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.parametrize("without", [False, True], ids=["python-prctl", "own"])
def test_a_name_and_orphans(without: bool) -> None:
    """It shows under its name, and a grandchild whose parent has gone is its to wait for."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(without=without)], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.stdout == "sysvisor-superv\n7\n", done.stderr

"""What every test of a part of the loop begins with."""

import pytest

from sysvisor_runc.aio import loop as loops
from tests.support.loops import LOOPS, Run, require


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on each of the loops."""
    name: str = request.param
    require(name)
    return lambda main: loops.run(main, prefer=name)

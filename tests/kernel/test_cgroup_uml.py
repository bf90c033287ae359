"""The cgroup tests on the layouts that this machine does not have, in user-mode-linux on its own root file system:
pure v2 with controllers, and full v1."""

from collections.abc import Callable

import pytest

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(420)]

CGROUPS = ("kernel/test_cgroup.py", "kernel/test_cgroup_limits.py", "kernel/test_cgroup_delegation.py")
# What speaks of cgroups by a command.
OOM = "integration/test_events.py::test_an_out_of_memory_kill[plain]"
USAGE = "integration/test_events.py::test_the_keys_are_runcs"


@pytest.mark.guest("v1", *CGROUPS)
def test_full_v1(said: Callable[[], str]) -> None:
    """Everything that holds on this machine's layout holds on plain v1."""
    assert " passed" in said()


@pytest.mark.guest("v2", *CGROUPS, OOM, USAGE)
def test_pure_v2(said: Callable[[], str]) -> None:
    """Everything that holds on this machine's layout holds on pure v2 with controllers; `events` is as runc's there."""
    text = said()
    assert "no runc" not in text and "runc does not run here" not in text

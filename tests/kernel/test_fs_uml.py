"""The views and sysctls on a kernel and a cgroup layout that this machine does not have: pure v2 in user-mode-linux."""

from collections.abc import Callable

import pytest

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(420)]


@pytest.mark.guest("v2", "kernel/test_fs_views.py", "kernel/test_fs_sysctl.py")
def test_pure_v2(said: Callable[[], str]) -> None:
    """Everything that holds on this machine's layout holds on pure v2 with controllers, and on an older kernel."""
    assert " passed" in said()

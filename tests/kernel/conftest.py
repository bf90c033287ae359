"""Cgroup managers for the tests, on this machine's own layout."""

import signal
import uuid
from collections.abc import Callable, Iterator

import pytest

from sysvisor_runc.cgroup.driver import open_driver
from sysvisor_runc.cgroup.layout import Layout, detect
from sysvisor_runc.cgroup.manager import Manager


@pytest.fixture
def layout() -> Layout:
    """The machine's own layout of cgroups."""
    found = detect()
    if found.kind == "none":
        pytest.skip("no cgroup hierarchy is mounted; to force it: mount -t cgroup2 cgroup2 /sys/fs/cgroup")
    return found


@pytest.fixture
def new_manager(layout: Layout) -> Iterator[Callable[[], Manager]]:
    """Makes managers of cgroups with names of their own; all go when the test ends, processes included."""
    managers: list[Manager] = []

    def make() -> Manager:
        manager = open_driver(layout, f"/sysvisor-test-{uuid.uuid4().hex[:8]}", "id")
        managers.append(manager)
        return manager

    yield make
    for manager in managers:
        manager.kill_all(signal.SIGKILL)
        manager.remove()


@pytest.fixture
def manager(new_manager: Callable[[], Manager], layout: Layout) -> Manager:
    """A manager whose cgroups are made."""
    manager = new_manager()
    manager.create(layout)
    return manager

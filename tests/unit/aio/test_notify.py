"""The service manager of a daemon on either loop, with a socket of our own in the manager's place."""

import asyncio
import os
import pathlib
from collections.abc import Iterator

import pytest

from sysvisor_runc.aio.notify import ServiceManager, stored_name
from tests.support.loops import Run
from tests.support.notified import Manager


@pytest.fixture
def manager(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """A socket that $NOTIFY_SOCKET names."""
    with Manager(str(tmp_path / "notify")) as listening:
        monkeypatch.setenv("NOTIFY_SOCKET", listening.address)
        yield listening


def taken() -> ServiceManager:
    return ServiceManager.take(asyncio.get_running_loop())


def test_a_life(run: Run, manager: Manager) -> None:
    """Ready, status, main process, reload and stop are told in order, and the environment is cleared."""

    async def main() -> None:
        ours = taken()
        assert ours.active and "NOTIFY_SOCKET" not in os.environ
        ours.ready("0 containers")
        ours.status("1 container")
        ours.main_pid(42)
        ours.reloading()
        ours.stopping()
        ours.close()

    run(main())
    lines = manager.until("STOPPING=1")
    assert [line for line in lines if not line.startswith("MONOTONIC")] == [
        "READY=1",
        "STATUS=0 containers",
        "STATUS=1 container",
        "MAINPID=42",
        "RELOADING=1",
        "STOPPING=1",
    ]


def test_without_a_manager(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it does nothing."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)

    async def main() -> None:
        ours = taken()
        assert not ours.active
        ours.ready()
        ours.watch()
        ours.store("console.web", 0)
        assert await ours.barrier()
        ours.close()

    run(main())


def test_the_watchdog_hears_of_a_living_loop(run: Run, manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told again and again, and not while we say that we are not well."""
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    well = True

    async def main() -> None:
        nonlocal well
        ours = taken()
        ours.watch(lambda: well)
        for _ in range(3):
            await asyncio.to_thread(manager.until, "WATCHDOG=1")
        well = False
        await asyncio.sleep(0.05)
        manager.pending()
        await asyncio.sleep(0.05)
        assert manager.pending() == []
        ours.close()

    run(main())


def test_a_full_queue_loses_nothing(run: Run, manager: Manager) -> None:
    """While the manager does not read, messages and their descriptors wait, and the loop turns on."""
    count = 2000

    async def main() -> None:
        ours = taken()
        reader, writer = os.pipe()
        for number in range(count):
            ours.status(str(number))
        ours.store("console.web", reader)
        os.close(reader)  # the manager's copy is its own
        seen = await asyncio.to_thread(manager.until, "FDNAME=console.web")
        assert [line for line in seen if line.startswith("STATUS")] == [f"STATUS={n}" for n in range(count)]
        os.close(writer)
        ours.close()

    run(main())


def test_a_barrier(run: Run, manager: Manager) -> None:
    """It returns once the manager has closed its descriptor, and gives up on one that does not."""

    async def main() -> None:
        ours = taken()
        assert not await ours.barrier(0.01)
        manager.pending()
        waiting = asyncio.ensure_future(ours.barrier(30))
        await asyncio.to_thread(manager.until, "BARRIER=1")
        assert await waiting
        ours.close()

    run(main())


def test_a_manager_that_goes_away(run: Run, manager: Manager) -> None:
    """Nobody is told, and nothing fails."""

    async def main() -> None:
        ours = taken()
        ours.ready()
        manager.__exit__()
        ours.status("alone")
        assert await ours.barrier()
        ours.close()

    run(main())


def test_names_of_stored_descriptors() -> None:
    """What comes back is found by the same function."""
    assert stored_name("console.web") == "console.web"
    assert stored_name("a" * 300) == stored_name("a" * 300) != stored_name("a" * 301)

"""The journal of events: numbers, readers that come late or are slow, bounds, and what a crash leaves."""

import asyncio
import os
import pathlib
import subprocess
import time
from collections.abc import Iterator

import pytest

from sysvisor_runc.aio.journal import Journal, Subscription, kept
from tests.support.loops import Run

Event = dict[str, object]


async def take(subscription: Subscription, count: int) -> list[Event]:
    return [await asyncio.wait_for(anext(subscription), 20) for _ in range(count)]


def seqs(events: list[Event]) -> list[object]:
    return [event.get("seq") for event in events]


def test_an_event_has_its_number_time_and_data(run: Run, tmp_path: pathlib.Path) -> None:
    """What is published is what a subscriber gets, in order and numbered from 1."""

    async def main() -> None:
        journal = Journal(str(tmp_path / "events"))
        subscription = journal.subscribe()
        assert journal.publish("start", "a", {"pid": 7}) == 1
        assert journal.publish("exit", "b", {}) == 2
        first, second = await take(subscription, 2)
        assert first["time"] and first["time"] <= second["time"]  # type: ignore[operator]
        del first["time"]
        assert first == {"type": "start", "id": "a", "seq": 1, "data": {"pid": 7}}
        assert second["type"] == "exit"
        journal.close()

    run(main())


def test_the_clock_jumps(run: Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set back or forth, it changes the times that events bear, and neither their order nor what `since` means."""
    days = iter((0, 9, -9, 3, -3))
    true = time.time_ns()
    monkeypatch.setattr("time.time_ns", lambda: true + next(days) * 86_400_000_000_000)

    async def main() -> None:
        journal = Journal(str(tmp_path))
        live = journal.subscribe()
        for number in range(5):
            journal.publish("start", str(number), {})
        told = await take(live, 5)
        assert seqs(told) == [1, 2, 3, 4, 5]
        times = [str(event["time"]) for event in told]
        assert times != sorted(times)
        assert [event["id"] for event in await take(journal.subscribe(since=2), 3)] == ["2", "3", "4"]
        journal.close()
        again = Journal(str(tmp_path))
        assert again.seq == 5
        assert seqs(await take(again.subscribe(since=0), 5)) == [1, 2, 3, 4, 5]
        again.close()

    run(main())


def test_numbers_go_on_after_a_restart(run: Run, tmp_path: pathlib.Path) -> None:
    """A new journal in the same directory continues the sequence, and tells what the old one kept."""

    async def main() -> None:
        first = Journal(str(tmp_path))
        for _ in range(3):
            first.publish("start", "a", {})
        # No close: as after SIGKILL.
        second = Journal(str(tmp_path))
        assert second.publish("exit", "a", {}) == 4
        assert seqs(await take(second.subscribe(since=1), 3)) == [2, 3, 4]
        second.close()
        first.close()

    run(main())


def test_a_late_reader_goes_from_old_to_new_without_a_gap(run: Run, tmp_path: pathlib.Path) -> None:
    """While it reads old events, new ones come, files are put aside, and none is missed or told twice."""

    async def main() -> None:
        journal = Journal(str(tmp_path), bound=400_000)
        for _ in range(3000):
            journal.publish("start", "a", {"filling": "x" * 40})
        subscription = journal.subscribe(since=0)
        told: list[Event] = []
        for _ in range(3000):
            told += await take(subscription, 1)
            if len(told) % 3 == 0:
                journal.publish("exit", "a", {"filling": "x" * 40})
        told += await take(subscription, 1000)
        assert seqs(told) == list(range(1, 4001))
        journal.close()

    run(main())


def test_only_the_wanted_containers_are_told(run: Run, tmp_path: pathlib.Path) -> None:
    """A filter holds for old events as for new ones."""

    async def main() -> None:
        journal = Journal(str(tmp_path))
        for name in "abc":
            journal.publish("start", name, {})
        subscription = journal.subscribe(since=0, ids={"b"})
        assert seqs(await take(subscription, 1)) == [2]
        task = asyncio.ensure_future(anext(subscription))
        await asyncio.sleep(0.01)
        journal.publish("exit", "c", {})
        journal.publish("exit", "b", {})
        assert (await asyncio.wait_for(task, 20))["seq"] == 5
        journal.close()

    run(main())


def test_a_slow_reader_is_told_how_many_it_missed(run: Run, tmp_path: pathlib.Path) -> None:
    """Its queue is bounded; the gap stands where it is, and what comes afterwards is told again."""

    async def main() -> None:
        journal = Journal(str(tmp_path))
        slow = journal.subscribe(bound=10)
        quick = journal.subscribe(bound=100)
        for _ in range(25):
            journal.publish("start", "a", {})
        told = await take(slow, 11)
        assert seqs(told[:10]) == list(range(1, 11))
        assert told[10] == {"type": "dropped", "count": 15}
        journal.publish("exit", "a", {})
        assert seqs(await take(slow, 1)) == [26]
        assert seqs(await take(quick, 26)) == list(range(1, 27))
        assert seqs(await take(journal.subscribe(since=10), 16)) == list(range(11, 27))
        journal.close()

    run(main())


def test_the_files_are_bounded_and_what_is_gone_is_counted(run: Run, tmp_path: pathlib.Path) -> None:
    """Two files of the bound's size are all there is on disk; who asks for more is told how many are missing."""

    async def main() -> None:
        journal = Journal(str(tmp_path), bound=10_000)
        for _ in range(1000):
            journal.publish("start", "a", {})
        assert sum(os.stat(tmp_path / name).st_size for name in os.listdir(tmp_path)) < 21_000
        gap, first, *_ = await take(journal.subscribe(since=0), 3)
        assert gap["type"] == "dropped"
        assert gap["count"] == first["seq"] - 1  # type: ignore[operator]
        journal.close()

    run(main())


def test_what_is_kept_can_be_read_without_a_writer(run: Run, tmp_path: pathlib.Path) -> None:
    """As a subscription would tell it: gaps, filters, and numbers of another journal included."""

    async def told(journal: Journal, since: int, ids: set[str] | None) -> list[Event]:
        return [event async for event in journal.subscribe(since, ids, follow=False)]

    async def main() -> None:
        assert list(kept(str(tmp_path / "absent"), 0)) == []
        journal = Journal(str(tmp_path), bound=10_000)
        for number in range(1000):
            journal.publish("start", "ab"[number % 2], {})
        for since, ids in ((0, None), (950, None), (950, {"a"}), (0, {"b"}), (1000, None), (5000, {"a"})):
            assert list(kept(str(tmp_path), since, ids)) == await told(journal, since, ids)
        journal.close()

    run(main())


def test_a_number_that_is_yet_to_come_means_another_journal(run: Run, tmp_path: pathlib.Path) -> None:
    """After the loss of the state root a reader with an old number gets the new events all the same."""

    async def main() -> None:
        journal = Journal(str(tmp_path))
        journal.publish("start", "a", {})
        assert seqs(await take(journal.subscribe(since=500), 1)) == [1]
        journal.close()

    run(main())


def test_a_line_cut_short_by_a_crash_is_cut_off(run: Run, tmp_path: pathlib.Path) -> None:
    """Half a line at the end, or damage in the middle, costs that line only."""

    async def main() -> None:
        journal = Journal(str(tmp_path))
        journal.publish("start", "a", {})
        journal.close()
        fd = os.open(tmp_path / "journal", os.O_WRONLY | os.O_APPEND)
        os.write(fd, b'no json\n{"type":"st')
        os.close(fd)
        journal = Journal(str(tmp_path))
        assert journal.publish("exit", "a", {}) == 2
        assert seqs(await take(journal.subscribe(since=0), 2)) == [1, 2]
        journal.close()

    run(main())


def test_closing_ends_the_subscriptions(run: Run, tmp_path: pathlib.Path) -> None:
    """What is queued is still told, then iteration stops; no descriptor stays open."""

    async def main() -> None:
        before = set(os.listdir("/proc/self/fd"))
        journal = Journal(str(tmp_path))
        live = journal.subscribe()
        journal.subscribe(since=0)
        journal.publish("start", "a", {})
        journal.close()
        assert [event["seq"] async for event in live] == [1]
        assert set(os.listdir("/proc/self/fd")) == before

    run(main())


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of 16 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root; to force it: run as root")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.root
def test_a_full_disk_costs_the_record_and_nothing_else(run: Run, small_disk: pathlib.Path) -> None:
    """Subscribers get every event, the numbers go on, a restart repeats none, and room found later is used again."""

    async def main() -> None:
        journal = Journal(str(small_disk), bound=1_000_000)
        subscription = journal.subscribe()
        for _ in range(300):
            journal.publish("start", "a", {})
        assert journal.unwritten > 0
        assert seqs(await take(subscription, 300)) == list(range(1, 301))
        journal.close()
        journal = Journal(str(small_disk), bound=1_000_000)
        assert journal.publish("exit", "a", {}) == 301
        os.truncate(small_disk / "journal", 0)
        journal.publish("exit", "a", {})
        gap, event = await take(journal.subscribe(since=0), 2)
        assert (gap["count"], event["seq"]) == (301, 302)
        journal.close()

    run(main())

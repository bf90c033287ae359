"""A container's memory and swap, from recorded cgroups of both versions."""

import pathlib
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysvisor_fs.node import Container
from sysvisor_fs.nodes.meminfo import Meminfo, Swaps, meminfo
from sysvisor_fs.views.memory import Host, host_lines, memory
from tests.support import fs_cgroup as cg

MIB = 1 << 20
HOST = Host(total=8192 * MIB, available=6000 * MIB, swap_total=1024 * MIB, swap_free=1000 * MIB)
STAT_V2 = cg.table(
    anon=40 * MIB, file=60 * MIB, shmem=5 * MIB, file_mapped=7 * MIB, file_dirty=1 * MIB, active_file=30 * MIB,
    inactive_file=25 * MIB, inactive_anon=42 * MIB, active_anon=3 * MIB, slab_reclaimable=6 * MIB,
    slab_unreclaimable=4 * MIB, kernel_stack=MIB, pagetables=2 * MIB, swapcached=MIB, unevictable=0,
)  # fmt: skip
STAT_V1 = cg.table(
    cache=1, rss=1, hierarchical_memory_limit=256 * MIB, total_cache=60 * MIB, total_rss=40 * MIB, total_shmem=5 * MIB,
    total_mapped_file=7 * MIB, total_active_file=30 * MIB, total_inactive_file=25 * MIB, total_inactive_anon=42 * MIB,
    total_active_anon=3 * MIB,
)  # fmt: skip
NONE_V1 = 9223372036854771712


def v2(root: pathlib.Path, limit: str | int = "max", usage: int = 120 * MIB, **more: str | int) -> Container:
    path = cg.make(root, "a/b", memory__max=limit, memory__current=usage, memory__stat=STAT_V2, **more)
    cg.write(path.parent, memory__max="max", memory__current=usage, memory__stat=STAT_V2)
    return cg.container(unified=path)


def v1(root: pathlib.Path, limit: int = NONE_V1, both: int = NONE_V1, **more: str | int) -> Container:
    path = cg.make(
        root, "a/b", memory__limit_in_bytes=limit, memory__usage_in_bytes=120 * MIB, memory__stat=STAT_V1,
        memory__memsw__limit_in_bytes=both, memory__memsw__usage_in_bytes=130 * MIB,
        memory__kmem__usage_in_bytes=8 * MIB, **more,
    )  # fmt: skip
    return cg.container(memory=path)


def lines(text: bytes) -> dict[str, int]:
    return {line.split(":")[0]: int(line.split()[1]) for line in text.decode().splitlines()}


def test_limit_and_usage_v2(tmp_path: pathlib.Path) -> None:
    """Total is the limit, free is what usage leaves, and what can be dropped is available besides."""
    found = memory(v2(tmp_path, 256 * MIB), HOST)
    assert found is not None
    assert (found.total, found.free, found.available) == (256 * MIB, 136 * MIB, (136 + 61) * MIB)


def test_limit_and_usage_v1(tmp_path: pathlib.Path) -> None:
    """The same from v1's files, with the totals of the subtree."""
    found = memory(v1(tmp_path, 256 * MIB), HOST)
    assert found is not None
    assert (found.total, found.free, found.available) == (256 * MIB, 136 * MIB, (136 + 55) * MIB)
    assert found.parts["anon"] == 40 * MIB
    assert found.parts["unreclaimable"] == 8 * MIB


def test_limit_of_an_ancestor_binds(tmp_path: pathlib.Path) -> None:
    """A parent that allows less, or has less left, decides."""
    container = v2(tmp_path, 256 * MIB)
    parent = tmp_path / "a"
    cg.write(parent, memory__max=200 * MIB, memory__current=190 * MIB, memory__stat=cg.table(anon=170 * MIB))
    found = memory(container, HOST)
    assert found is not None
    assert found.total == 200 * MIB
    assert found.available == 10 * MIB
    assert found.free == 0


def test_without_a_limit_the_host_decides(tmp_path: pathlib.Path) -> None:
    """No limit, or one beyond the machine: total and available are the host's."""
    for limit in ("max", 1 << 50):
        found = memory(v2(tmp_path, limit), HOST)
        assert found is not None
        assert (found.total, found.available) == (HOST.total, HOST.available)
    found = memory(v1(tmp_path), HOST)
    assert found is not None
    assert found.total == HOST.total


def test_a_full_host_leaves_less_than_the_limit(tmp_path: pathlib.Path) -> None:
    """What the host cannot give is not told as available."""
    found = memory(v2(tmp_path, 4096 * MIB), HOST._replace(available=80 * MIB))
    assert found is not None
    assert found.available == 80 * MIB
    assert found.free == 19 * MIB  # without the 61 that would have to come out of its own cache


@pytest.mark.parametrize(("limit", "used", "expected"), [
    ("max", 24, (1024, 1000)), (0, 0, (0, 0)), (100, 30, (100, 70)), (4096, 0, (1024, 1000)),
])  # fmt: skip
def test_swap_v2(tmp_path: pathlib.Path, limit: str | int, used: int, expected: tuple[int, int]) -> None:
    """The limit on swap, within the host's."""
    most = limit if isinstance(limit, str) else limit * MIB
    container = v2(tmp_path, 256 * MIB, memory__swap__max=most, memory__swap__current=used * MIB)
    found = memory(container, HOST)
    assert found is not None
    assert (found.swap_total // MIB, found.swap_free // MIB) == expected


def test_swap_v1_is_what_goes_beyond_memory(tmp_path: pathlib.Path) -> None:
    """v1 limits both together: 384 of both with 256 of memory is 128 of swap, of which 10 are used."""
    found = memory(v1(tmp_path, 256 * MIB, 384 * MIB), HOST)
    assert found is not None
    assert (found.swap_total, found.swap_free) == (128 * MIB, 118 * MIB)
    equal = memory(v1(tmp_path, 256 * MIB, 256 * MIB), HOST)
    assert equal is not None
    assert equal.swap_total == 0


def test_controller_that_is_off_counts_above(tmp_path: pathlib.Path) -> None:
    """Where the container's own cgroup has no memory controller the nearest one above tells."""
    cg.make(tmp_path, "a", memory__max=64 * MIB, memory__current=10 * MIB, memory__stat=cg.table(anon=1))
    found = memory(cg.container(unified=cg.make(tmp_path, "a/b")), HOST)
    assert found is not None
    assert (found.total, found.free) == (64 * MIB, 54 * MIB)


def test_no_cgroup_means_the_host(tmp_path: pathlib.Path) -> None:
    """Without a cgroup that counts memory the file is the host's."""
    container = cg.container(unified=cg.make(tmp_path, "a"))
    assert memory(container, HOST) is None
    assert lines(Meminfo().read(container, cg.NOBODY))["MemTotal"] == host_lines()[b"MemTotal"]


def test_meminfo_has_this_kernels_lines(tmp_path: pathlib.Path) -> None:
    """The same lines in the same order and layout as /proc/meminfo, with the container's numbers."""
    text = Meminfo().read(v2(tmp_path, 256 * MIB), cg.NOBODY).decode()
    host = pathlib.Path("/proc/meminfo").read_text()
    assert [line.split(":")[0] for line in text.splitlines()] == [line.split(":")[0] for line in host.splitlines()]
    for ours, theirs in zip(text.splitlines(), host.splitlines(), strict=True):
        assert len(ours) == len(theirs) or "Vmalloc" in ours, (ours, theirs)
        assert ours.endswith(" kB") == theirs.endswith(" kB")
    found = lines(text.encode())
    assert found["MemTotal"] == 256 << 10
    assert found["Cached"] == 59 << 10
    assert found["Buffers"] == found["Bounce"] == 0


def test_swaps_agrees_with_meminfo(tmp_path: pathlib.Path) -> None:
    """One line with meminfo's numbers, or none without swap."""
    container = v2(tmp_path, 256 * MIB, memory__swap__max=0)
    text = Swaps().read(container, cg.NOBODY)
    assert text.startswith(b"Filename")
    assert len(text.splitlines()) == 1


sizes = st.integers(0, 1 << 42)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_lines_never_contradict_each_other(data: st.DataObject) -> None:
    """Whatever the counters say, and they are not of one instant, parts stay within the whole."""
    names = ("anon", "file", "active_file", "inactive_file", "slab_reclaimable", "slab_unreclaimable", "swapcached")
    with tempfile.TemporaryDirectory() as directory:
        stat = cg.table(**{name: data.draw(sizes) for name in names})
        path = cg.make(
            pathlib.Path(directory), "x/y", memory__max=data.draw(st.one_of(st.just("max"), sizes)),
            memory__current=data.draw(sizes), memory__stat=stat, memory__swap__current=data.draw(sizes),
            memory__swap__max=data.draw(st.one_of(st.just("max"), sizes)),
        )  # fmt: skip
        host = Host(1 << 35, data.draw(st.integers(0, 1 << 35)), 1 << 33, data.draw(st.integers(0, 1 << 33)))
        view = memory(cg.container(unified=path), host)
    assert view is not None
    found = lines(meminfo(host_lines(), view))
    assert 0 <= found["MemFree"] <= found["MemAvailable"] <= found["MemTotal"] <= host.total >> 10
    assert 0 <= found["SwapFree"] <= found["SwapTotal"]
    assert found["MemFree"] == 0 or found["MemFree"] + found["AnonPages"] + found["Cached"] <= found["MemTotal"]

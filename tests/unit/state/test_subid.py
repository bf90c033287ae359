"""Subordinate ids: whose ranges they are, that nobody shares them, and that none is lost."""

import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from sysvisor_runc.errors import StateError
from sysvisor_runc.state import subid

ROOT = pathlib.Path(__file__).resolve().parents[3]
SIZE = subid.SIZE


class Host:
    """A host with its own files and registry, and state roots to make containers in.

    Attributes: `registry` is its path.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.registry = str(directory / "registry")

    def write(self, *, subuid: str = "", subgid: str | None = None, passwd: str = "") -> None:
        """Give the files these contents; subgid's is subuid's unless told otherwise."""
        (self.directory / "subuid").write_text(subuid)
        (self.directory / "subgid").write_text(subuid if subgid is None else subgid)
        (self.directory / "passwd").write_text(passwd)

    def container(self, name: str, root: str = "root") -> str:
        """The state directory of a container, made if need be."""
        path = self.directory / root / name
        path.mkdir(parents=True, exist_ok=True)
        return str(path)

    def allocate(self, name: str, root: str = "root") -> tuple[int, int]:
        """Where its ranges start: users', groups'."""
        got = subid.allocate(self.container(name, root), registry=self.registry)
        assert got["size"] == SIZE
        return got["uid"], got["gid"]

    def recorded(self) -> list[str]:
        """The ranges in use."""
        return sorted(os.listdir(self.registry))


@pytest.fixture
def host(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host without any configured ids."""
    for name in ("SUBUID", "SUBGID", "PASSWD"):
        monkeypatch.setattr(subid, name, str(tmp_path / name.lower()))
    return Host(tmp_path)


# ---- where ranges come from


def test_the_default_range_keeps_clear_of_others() -> None:
    """It touches neither useradd's, nspawn's, Incus', SSSD's nor the foreign ids, nor those that are no valid ids."""
    taken = [
        range(65536), range(100000, 600100001), range(524288, 1879048192), range(1000000, 1001000000),
        range(200000, 2000200001), range(2147352576, 2147418112), range(2147483647, 4294967296),
    ]  # fmt: skip
    ours = range(subid.DEFAULT_FIRST, subid.DEFAULT_LAST + 1)
    assert not any(max(ours.start, other.start) < min(ours.stop, other.stop) for other in taken)
    assert len(ours) // SIZE == 2046
    assert len(ours) % SIZE == 0


def test_without_configuration_the_default_range_is_used(host: Host) -> None:
    """With files that say nothing of us, and without files at all."""
    for _ in range(2):
        uid, gid = host.allocate("c")
        assert subid.DEFAULT_FIRST <= uid == gid <= subid.DEFAULT_LAST + 1 - SIZE
        host.write(subuid="other:100000:65536\n")


def test_the_default_range_spares_what_others_were_given(host: Host) -> None:
    """Whoever has ids of it in /etc/subuid keeps them."""
    free = subid.DEFAULT_LAST + 1 - 2 * SIZE
    host.write(
        subuid=f"other:{subid.DEFAULT_FIRST}:{free - subid.DEFAULT_FIRST}\n",
        subgid=f"other:{free + SIZE}:{SIZE}\n",
    )
    assert host.allocate("a") == (free, free)
    with pytest.raises(StateError, match="all 1 ranges"):
        host.allocate("b")


@pytest.mark.parametrize("line", ["sysvisor:300000:131072", " sysvisor:300000:131072 ", "997:300000:131072"])
def test_configured_ids_are_used(host: Host, line: str) -> None:
    """Those of user `sysvisor`, by name or by number, and no others."""
    host.write(
        subuid=f"# comment\n\nsysvisor2:1:2\nother:100000:65536\nbroken\n{line}\n",
        passwd="root:x:0:0::/:/bin/sh\nsysvisor:x:997:997::/:/bin/false\n",
    )
    assert {host.allocate("a"), host.allocate("b")} == {(300000, 300000), (365536, 365536)}
    with pytest.raises(StateError, match="all 2 ranges of subordinate ids are in use") as caught:
        host.allocate("c")
    assert "delete containers" in str(caught.value.hint)


def test_users_and_groups_start_alike_where_they_can(host: Host) -> None:
    """Only the ids that both files give are used then."""
    host.write(subuid=f"sysvisor:300000:{4 * SIZE}\n", subgid=f"sysvisor:{300000 + SIZE}:{SIZE}\n")
    assert host.allocate("a") == (300000 + SIZE, 300000 + SIZE)
    with pytest.raises(StateError, match="all 1 ranges"):
        host.allocate("b")


def test_users_and_groups_may_start_apart(host: Host) -> None:
    """Where the files have nothing in common each gives its own, and both stay exclusive."""
    host.write(subuid=f"sysvisor:300000:{2 * SIZE}\n", subgid=f"sysvisor:900000:{2 * SIZE}\n")
    got = {host.allocate("a"), host.allocate("b")}
    assert got == {(300000, 900000), (300000 + SIZE, 900000 + SIZE)}


def test_several_lines_add_up(host: Host) -> None:
    """Ranges are taken from every line that holds one, the rest of a line is left."""
    host.write(subuid=f"sysvisor:300000:{SIZE + 1}\nsysvisor:600000:100\nsysvisor:900000:{2 * SIZE - 1}\n")
    assert {host.allocate("a")[0], host.allocate("b")[0]} == {300000, 900000}


@pytest.mark.parametrize(
    ("subuid", "subgid", "words"),
    [
        ("sysvisor:300000:65535\n", None, "no 65536 subordinate ids"),
        ("sysvisor:300000:65536\n", "", "none in .*subgid"),
        ("", "sysvisor:300000:65536\n", "none in .*subuid"),
    ],
)
def test_a_configuration_that_cannot_work_is_told(host: Host, subuid: str, subgid: str | None, words: str) -> None:
    """Rather than falling back to ids that nobody asked for."""
    host.write(subuid=subuid, subgid=subgid)
    with pytest.raises(StateError, match=words) as caught:
        host.allocate("a")
    assert caught.value.hint


# ---- who has them


def test_the_same_container_gets_the_same_range(host: Host) -> None:
    """Files that it left on a volume still belong to it when it is made again."""
    first = host.allocate("web")
    directory = host.container("web")
    subid.free(directory, {"uid": first[0], "gid": first[1], "size": SIZE}, registry=host.registry)
    os.rmdir(directory)
    assert host.allocate("web") == first


def test_two_state_roots_share_no_ids(host: Host) -> None:
    """Containers of one name in two roots have different ids."""
    host.write(subuid=f"sysvisor:300000:{2 * SIZE}\n")
    assert host.allocate("c", root="one") != host.allocate("c", root="two")
    with pytest.raises(StateError, match="all 2 ranges"):
        host.allocate("c", root="three")


def test_only_the_owner_frees(host: Host) -> None:
    """A record that was copied, or lags behind, frees nobody else's range."""
    uid, gid = host.allocate("a")
    subid.free(host.container("b"), {"uid": uid, "gid": gid, "size": SIZE}, registry=host.registry)
    assert host.recorded() == [f"{uid}-{gid}"]


def test_freeing_without_a_record_finds_the_range(host: Host) -> None:
    """As after a create that was killed before it could write one."""
    host.allocate("a")
    kept = host.allocate("b")
    subid.free(host.container("a"), None, registry=host.registry)
    assert host.recorded() == [f"{kept[0]}-{kept[1]}"]


def test_freeing_what_was_never_allocated_is_fine(host: Host) -> None:
    """No registry, no record, no error."""
    subid.free(host.container("a"), None, registry=host.registry)
    assert not os.path.exists(host.registry)


def test_ranges_do_not_overlap_after_the_files_were_edited(host: Host) -> None:
    """A range allocated at another alignment is respected on both sides."""
    host.write(subuid=f"sysvisor:300000:{SIZE}\n")
    assert host.allocate("old") == (300000, 300000)
    host.write(subuid=f"sysvisor:{300000 - SIZE // 2}:{3 * SIZE}\n")
    start = 300000 - SIZE // 2
    assert host.allocate("new") == (start + 2 * SIZE, start + 2 * SIZE)
    with pytest.raises(StateError, match="all 3 ranges"):
        host.allocate("another")


@pytest.mark.parametrize("made", [lambda path: os.mkdir(path, 0o777), lambda path: os.symlink("/tmp", path)])
def test_an_unsafe_registry_is_refused(host: Host, made: Callable[[str], None]) -> None:
    """One that others could write to, or that leads elsewhere."""
    made(host.registry)
    if not os.path.islink(host.registry):
        os.chmod(host.registry, 0o777)
    with pytest.raises(StateError, match="cannot use the registry"):
        host.allocate("a")


# ---- many, and crashes


def test_a_hundred_at_once_share_nothing(host: Host) -> None:
    """100 processes of two state roots allocate at the same moment: 100 different ranges."""
    host.write(subuid=f"sysvisor:1000000:{100 * SIZE}\n")
    ready, go = os.pipe()
    results, result = os.pipe()
    children = []
    for number in range(100):
        directory = host.container(f"c{number // 2}", root=f"root{number % 2}")
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(ready, 1)
            try:
                got = subid.allocate(directory, registry=host.registry)
                os.write(result, f"{got['uid']} {got['gid']}\n".encode())
            finally:
                os._exit(0)
        children.append(child)
    for fd in (ready, go, result):
        os.close(fd)
    with open(results) as file:
        lines = file.read().split("\n")[:-1]
    for child in children:
        os.waitpid(child, 0)
    assert len(lines) == 100
    assert len(set(lines)) == 100


def test_all_of_them_can_be_had_and_given_back(host: Host) -> None:
    """The last free range is found too, and a freed one right away."""
    host.write(subuid=f"sysvisor:1000000:{50 * SIZE}\n")
    got = {host.allocate(f"c{number}") for number in range(50)}
    assert len(got) == 50
    with pytest.raises(StateError, match="all 50 ranges"):
        host.allocate("one more")
    subid.free(host.container("c7"), None, registry=host.registry)
    assert host.allocate("one more") in got


def test_a_range_whose_container_is_gone_is_free(host: Host) -> None:
    """As after a state root that was removed by hand, or a command killed between two steps of deleting."""
    host.write(subuid=f"sysvisor:1000000:{2 * SIZE}\n")
    first, second = host.allocate("a"), host.allocate("b")
    os.rmdir(host.container("a"))
    assert host.allocate("c") == first
    os.rmdir(host.container("b"))
    os.rmdir(host.container("c"))
    assert {host.allocate("d"), host.allocate("e")} == {first, second}


def test_a_range_of_a_container_that_is_being_created_is_not(host: Host) -> None:
    """Its directory is there before it has a record."""
    host.write(subuid=f"sysvisor:1000000:{SIZE}\n")
    host.allocate("a")
    with pytest.raises(StateError, match="all 1 ranges"):
        host.allocate("b")


@pytest.mark.root
def test_a_range_with_a_process_in_it_is_never_given_away(host: Host) -> None:
    """Removing the state of a running container does not put another one into its ids, not even one of its name."""
    host.write(subuid=f"sysvisor:1000000000:{SIZE}\n")
    uid, _ = host.allocate("a")
    with subprocess.Popen(["unshare", "--user", "/bin/sleep", "1000"]) as process:
        own = pathlib.Path("/proc/self/ns/user").stat()
        while os.path.samestat(pathlib.Path(f"/proc/{process.pid}/ns/user").stat(), own):
            pass
        pathlib.Path(f"/proc/{process.pid}/uid_map").write_text(f"0 {uid} {SIZE}")
        os.rmdir(host.container("a"))
        for name in ("b", "a"):
            with pytest.raises(StateError, match="all 1 ranges"):
                host.allocate(name)
        process.kill()
        process.wait(10)
    assert host.allocate("a")[0] == uid


def test_a_range_left_by_a_killed_command_is_taken_up_again(host: Host) -> None:
    """A create of the same name gets the range that its predecessor could not use."""
    host.write(subuid=f"sysvisor:1000000:{SIZE}\n")
    assert host.allocate("a") == host.allocate("a")


def test_a_killed_allocator_blocks_nobody(host: Host) -> None:
    """SIGKILL with the registry locked leaves it unlocked and sound."""
    host.write(subuid=f"sysvisor:1000000:{2 * SIZE}\n")
    host.allocate("a")
    script = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "from sysvisor_runc.state import subid\n"
        f"with subid._Registry({host.registry!r}): print(flush=True); time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.send_signal(signal.SIGKILL)
    host.allocate("b")
    assert len(host.recorded()) == 2

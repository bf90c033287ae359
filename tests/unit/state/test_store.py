"""The state root on a real file system: exclusive, atomic, locked, and safe from what others put there."""

import fcntl
import os
import pathlib
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from sysvisor_runc.errors import NoRecord, NoSuchContainer, StateError
from sysvisor_runc.state.record import new_record
from sysvisor_runc.state.store import Entry, Store, check_id

ROOT = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture
def store(tmp_path: pathlib.Path) -> Iterator[Store]:
    """A state root that does not exist yet."""
    made = Store(str(tmp_path / "a/state"))
    yield made
    made.close()


def record(container_id: str, **fields: object) -> dict[str, object]:
    """A record to store."""
    spec = {"ociVersion": "1.3.0"}
    made = new_record(container_id, bundle="/b", rootfs="/r", spec=spec, flags={}, syscont=True)  # type: ignore[arg-type]
    return {**made, **fields}


def background(script: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """Another process with our modules, in which `store` and `entry` stand for the root and id given."""
    head = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from sysvisor_runc.state.store import Store\n"
        "store = Store(sys.argv[1]); entry = store.open(sys.argv[2])\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", head + script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


# ---- ids


@pytest.mark.parametrize("good", ["a", "A-b_c+d.e", "..a", "...", "-x", "0" * 255])
def test_ids_that_runc_takes(good: str) -> None:
    """Letters, digits and _ + - . in any order."""
    assert check_id(good) == good


@pytest.mark.parametrize(
    "bad", ["", ".", "..", "../x", "/x", "a/b", "a\0b", "a b", "ü", "@subid", "a\n", "x" * 256, "x" * 1025, "a\udcff"]
)
def test_ids_that_could_leave_the_root(store: Store, bad: str) -> None:
    """Whatever is no plain name is refused by every way in, and nothing is made."""
    with pytest.raises(StateError, match="invalid container ID format"):
        store.create(bad)
    with pytest.raises(StateError, match="invalid container ID format"):
        store.open(bad)
    assert not os.path.exists(store.root)


# ---- the root


def test_everything_is_ours_alone(store: Store, tmp_path: pathlib.Path) -> None:
    """The root, the parents made for it, the container and its record can be entered and read by nobody else."""
    before = os.umask(0)
    try:
        with store.create("c") as entry:
            entry.save(record("c"))  # type: ignore[arg-type]
    finally:
        os.umask(before)
    modes = {path: (tmp_path / path).stat().st_mode & 0o7777 for path in ("a", "a/state", "a/state/c")}
    assert set(modes.values()) == {0o700}
    assert (tmp_path / "a/state/c/state.json").stat().st_mode & 0o7777 == 0o600


def test_a_directory_that_is_deleted_as_soon_as_it_is_made(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `delete --force` that is quicker than the creator's next step is told as what it is."""
    mkdir = os.mkdir

    def made_and_gone(path: str, mode: int, dir_fd: int) -> None:
        mkdir(path, mode, dir_fd=dir_fd)
        os.rmdir(path, dir_fd=dir_fd)

    store.fd(create=True)
    monkeypatch.setattr(os, "mkdir", made_and_gone)
    with pytest.raises(StateError, match="container 'c' was deleted while it was being created"):
        store.create("c")
    assert store.ids() == []


def test_an_id_is_taken_once(store: Store) -> None:
    """The second creator of an id is told so and changes nothing."""
    with store.create("c") as entry:
        entry.save(record("c"))  # type: ignore[arg-type]
        with pytest.raises(StateError, match="container with given ID already exists"):
            store.create("c")
        assert entry.load()["id"] == "c"


def test_of_many_creators_one_wins(store: Store) -> None:
    """Twenty at once: exactly one gets the id."""
    store.create("other").close()
    won: list[str] = []

    def create() -> None:
        try:
            Store(store.root).create("c").close()
        except StateError:
            return
        won.append("c")

    threads = [threading.Thread(target=create) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == ["c"]


def test_a_missing_container_is_told(store: Store) -> None:
    """With and without a state root."""
    with pytest.raises(NoSuchContainer, match="container does not exist"):
        store.open("c")
    store.create("other").close()
    with pytest.raises(NoSuchContainer, match="container does not exist"):
        store.open("c")


def test_listing_a_missing_root_is_left_to_the_caller(store: Store) -> None:
    """Only the command line knows whether a missing root is an error."""
    with pytest.raises(FileNotFoundError):
        store.ids()


def test_ids_are_directories_with_possible_names(store: Store) -> None:
    """Files, links and names that no container can have are passed over."""
    for name in ("b", "a"):
        store.create(name).close()
    root = pathlib.Path(store.root)
    (root / "@cache").mkdir()
    (root / "file").touch()
    (root / "link").symlink_to("a")
    assert store.ids() == ["a", "b"]


def test_a_symbolic_link_is_no_root(tmp_path: pathlib.Path) -> None:
    """A root that could be pointed elsewhere is refused, by itself and with a slash behind."""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    for name in ("link", "link/"):
        with pytest.raises(StateError, match="state root") as caught:
            Store(f"{tmp_path}/{name}").create("c")
        assert "symbolic link" in str(caught.value.hint)
    assert list((tmp_path / "real").iterdir()) == []


def test_a_container_that_is_a_link_is_not_entered(store: Store, tmp_path: pathlib.Path) -> None:
    """A link in place of a container's directory leads nowhere."""
    store.create("c").close()
    (tmp_path / "elsewhere").mkdir()
    (pathlib.Path(store.root) / "evil").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NoSuchContainer):
        store.open("evil")


def test_a_root_that_others_may_write_to_is_refused(tmp_path: pathlib.Path) -> None:
    """Somebody else could exchange a container's directory; its mode is not touched."""
    root = tmp_path / "shared"
    root.mkdir()
    root.chmod(0o1777)
    with pytest.raises(StateError, match="writable by others") as caught:
        Store(str(root)).create("c")
    assert "chmod 0700" in str(caught.value.hint)
    assert root.stat().st_mode & 0o7777 == 0o1777


def test_a_root_that_others_may_read_is_used(tmp_path: pathlib.Path) -> None:
    """Clients make their roots with mode 0755: what is inside is closed all the same."""
    root = tmp_path / "open"
    root.mkdir(mode=0o755)
    Store(str(root)).create("c").close()
    assert (root / "c").stat().st_mode & 0o077 == 0


@pytest.mark.root
def test_a_root_of_somebody_else_is_refused(tmp_path: pathlib.Path) -> None:
    """Another user's directory is not a place for our state."""
    root = tmp_path / "theirs"
    root.mkdir(mode=0o700)
    os.chown(root, 1234, 1234)
    with pytest.raises(StateError, match="belongs to uid 1234"):
        Store(str(root)).create("c")


def test_a_file_is_no_root(tmp_path: pathlib.Path) -> None:
    """A file where the root should be is told with the path."""
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="cannot create a container in state root"):
        Store(str(tmp_path / "file")).create("c")
    with pytest.raises(StateError, match="cannot create a container in state root"):
        Store(str(tmp_path / "file/below")).create("c")


@pytest.fixture
def tiny(tmp_path: pathlib.Path) -> Iterator[Callable[[str], pathlib.Path]]:
    """Mounts a small tmpfs with the options given."""
    target = tmp_path / "tiny"
    target.mkdir()

    def mount(options: str) -> pathlib.Path:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=0700,{options}", "tmpfs", target], check=True)
        return target

    yield mount
    # Whatever the store that failed still has open there.
    subprocess.run(["umount", "-l", target], check=True)


@pytest.mark.root
def test_a_read_only_root_is_told(tiny: Callable[[str], pathlib.Path]) -> None:
    """One line and a hint."""
    with pytest.raises(StateError, match="read-only file system") as caught:
        Store(str(tiny("ro"))).create("c")
    assert "give another --root" in str(caught.value.hint)


@pytest.mark.root
def test_a_full_disk_keeps_the_old_record(tiny: Callable[[str], pathlib.Path]) -> None:
    """A record that does not fit leaves the one before it, and no half of itself."""
    root = tiny("size=16k")
    with Store(str(root)).create("c") as entry:
        entry.save(record("c"))  # type: ignore[arg-type]
        with pytest.raises(StateError, match="no space left on device") as caught:
            entry.save(record("c", bundle="x" * 100_000))  # type: ignore[arg-type]
        assert "free some space" in str(caught.value.hint)
        assert entry.load()["bundle"] == "/b"
        assert os.listdir(root / "c") == ["state.json"]


# ---- records


def test_a_record_is_read_back(store: Store) -> None:
    """Fields that this version does not know included."""
    with store.create("c") as entry:
        entry.save(record("c", unheard="of"))  # type: ignore[arg-type]
    with store.open("c") as entry:
        assert entry.load() == record("c", unheard="of", created=entry.load()["created"])


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"id": "other", "initPid": 1}', '{"id": "c"}', "[" * 100_000, "\xff"]
)
def test_what_is_no_record_is_told(store: Store, content: str) -> None:
    """A damaged record is an error with a hint, never a traceback, and never taken for a record."""
    with store.create("c") as entry:
        (pathlib.Path(entry.path) / "state.json").write_bytes(content.encode("latin-1"))
        with pytest.raises(NoRecord) as caught:
            entry.load()
    assert "delete --force" in str(caught.value.hint)


def test_a_container_without_a_record_is_told(store: Store) -> None:
    """What a killed `create` leaves behind can be told from a container that does not exist."""
    with store.create("c") as entry, pytest.raises(NoRecord, match="has no state"):
        entry.load()


def test_a_record_of_a_newer_format_is_not_guessed_at(store: Store) -> None:
    """It is refused, and not as a broken one that might be deleted."""
    with store.create("c") as entry:
        entry.save(record("c", version=99))  # type: ignore[arg-type]
        with pytest.raises(StateError, match="version 99") as caught:
            entry.load()
    assert not isinstance(caught.value, NoRecord)


def test_readers_never_see_half_a_record(store: Store) -> None:
    """While one process rewrites the record, another always reads a whole one."""
    with store.create("c") as entry:
        entry.save(record("c"))  # type: ignore[arg-type]
        script = "record = entry.load()\nwhile True:\n record['bundle'] = 'x' * 30000; entry.save(record)\n"
        script += " record['bundle'] = '/b'; entry.save(record)"
        writer = background(script, store.root, "c")
        try:
            for _ in range(2000):
                assert entry.load()["bundle"] in ("/b", "x" * 30000)
        finally:
            writer.kill()
            writer.communicate()


def test_a_writer_killed_at_any_moment_leaves_a_record(store: Store) -> None:
    """SIGKILL while writing leaves the old or the new record, and the next writer is not disturbed."""
    with store.create("c") as entry:
        entry.save(record("c"))  # type: ignore[arg-type]
        script = "record = entry.load()\nprint(flush=True)\nwhile True: entry.save(record)"
        for _ in range(5):
            writer = background(script, store.root, "c")
            assert writer.stdout is not None
            writer.stdout.readline()
            writer.kill()
            writer.communicate()
            assert entry.load()["id"] == "c"
            entry.save(entry.load())


# ---- the lock


def test_who_creates_holds_the_lock(store: Store) -> None:
    """Until it unlocks, nobody takes the container that is being made for what a killed command left."""
    with store.create("c") as entry, store.open("c") as other:
        assert other.busy()
        with pytest.raises(StateError, match="is busy"), other.lock(timeout=0):
            pass
        entry.unlock()
        assert not other.busy()
        with other.lock(timeout=0):
            pass


def test_the_lock_excludes(store: Store) -> None:
    """Who comes second waits, and is told in the end whom for."""
    with store.create("c") as first, store.open("c") as second:
        with first.lock():
            with pytest.raises(StateError, match="is busy") as caught, second.lock(timeout=0.02):
                pass
            assert str(os.getpid()) in str(caught.value.hint)
        with second.lock(timeout=0):
            pass


def test_shared_locks_do_not_exclude_each_other(store: Store) -> None:
    """Two readers hold it together, and keep a writer out."""
    first, second, third = store.create("c"), store.open("c"), store.open("c")
    with first.lock(exclusive=False), second.lock(exclusive=False, timeout=0):  # noqa: SIM117  # one after the other
        with pytest.raises(StateError, match="is busy"), third.lock(timeout=0):
            pass
    with third.lock(timeout=0):
        pass
    for entry in (first, second, third):
        entry.close()


def test_the_lock_is_waited_for(store: Store) -> None:
    """It is got as soon as the holder lets go."""
    with store.create("c") as entry:
        entry.unlock()
        holder = background("with entry.lock():\n print(flush=True)\n sys.stdin.readline()", store.root, "c")
        assert holder.stdout is not None
        holder.stdout.readline()
        assert entry.busy()
        threading.Timer(0.05, holder.communicate, (b"\n",)).start()
        with entry.lock():
            assert not entry.busy()
        holder.wait(10)


def test_a_killed_holder_frees_the_lock(store: Store) -> None:
    """SIGKILL leaves no lock behind."""
    with store.create("c") as entry:
        entry.unlock()
        holder = background("with entry.lock():\n print(flush=True)\n import time; time.sleep(100)", store.root, "c")
        assert holder.stdout is not None
        holder.stdout.readline()
        assert entry.busy()
        holder.kill()
        holder.communicate()
        with entry.lock(timeout=0):
            pass


def test_unlocking_counts_for_children_that_share_the_directory(store: Store) -> None:
    """A child made while the lock was held does not keep it, although it has inherited the open directory."""
    with store.create("c") as entry:
        with entry.lock():
            child = os.fork()
            if child == 0:
                signal.pause()
        try:
            with store.open("c") as other, other.lock(timeout=0):
                pass
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_who_waited_for_a_deleted_container_is_told(store: Store) -> None:
    """The lock of a directory that is gone, or of one made anew under its name, is not enough."""
    with store.create("c") as entry:
        entry.remove()
        with pytest.raises(NoSuchContainer, match="container does not exist"), entry.lock():
            pass
        with store.create("c"), pytest.raises(NoSuchContainer), entry.lock():
            pass


def test_looking_does_not_drop_our_own_lock(store: Store) -> None:
    """`busy` on an entry that holds a shared lock leaves it held."""
    with store.create("c") as entry, store.open("c") as other:
        entry.lock(exclusive=False).__enter__()
        assert not entry.busy()
        with pytest.raises(BlockingIOError):
            fcntl.flock(other.dirfd, fcntl.LOCK_EX | fcntl.LOCK_NB)


# ---- removing


def test_remove_takes_everything(store: Store, tmp_path: pathlib.Path) -> None:
    """Pipes, sockets and directories go; what a link points to stays."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    with store.create("c") as entry:
        entry.save(record("c"))  # type: ignore[arg-type]
        path = pathlib.Path(entry.path)
        (path / "deep/er").mkdir(parents=True)
        (path / "deep/er/file").touch()
        (path / "deep/link").symlink_to(tmp_path / "kept")
        os.mkfifo(path / entry.FIFO)
        entry.remove()
        entry.remove()
    assert store.ids() == []
    assert (tmp_path / "kept/file").exists()


def test_the_record_goes_last(store: Store) -> None:
    """A removal that fails midway leaves a container that can be deleted again."""
    with store.create("c") as entry:
        entry.save(record("c"))  # type: ignore[arg-type]
        (pathlib.Path(entry.path) / "a").mkdir()
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (entry.dirfd + 1, limit[1]))
        try:
            with pytest.raises(StateError, match="cannot remove"):
                entry.remove()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        assert entry.load()["id"] == "c"
        entry.remove()


def test_removal_bears_what_vanishes_meanwhile(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that a supervisor renames while the directory is emptied is no reason to leave the rest behind."""
    entry = Store(str(tmp_path / "root")).create("c")
    path = pathlib.Path(entry.path)
    for name in ("a", "b", Entry.RECORD):
        (path / name).write_text("")
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda fd: ["gone", *listdir(fd)])
    entry.remove()
    entry.close()
    assert not path.exists()

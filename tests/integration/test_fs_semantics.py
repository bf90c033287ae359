"""sysvisor-fs as a file system: what programs do to files of /proc and /sys, on real mounts."""

import concurrent.futures
import errno
import os
import pathlib
import random
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.fs_daemon import FsDaemon
from tests.support.fs_tree import LONG
from tests.support.runtime import wait_until


class Served:
    """A daemon with two containers, and paths to the trees of the first."""

    def __init__(self, daemon: FsDaemon) -> None:
        self.daemon = daemon
        self.fds: list[int] = []

    def path(self, name: str, container: str = "c0") -> str:
        """A path of this process to a clone of a tree."""
        (fd,) = self.daemon.trees(container, name)
        self.fds.append(fd)
        return f"/proc/{os.getpid()}/fd/{fd}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One daemon for all of these tests."""
    daemon = FsDaemon(tmp_path_factory.mktemp("fs"))
    daemon.start()
    daemon.register("c0", "c1")
    found = Served(daemon)
    yield found
    for fd in found.fds:
        os.close(fd)
    daemon.end()


def refused(call: object, number: int) -> bool:
    """Whether a call fails with this errno."""
    assert callable(call)
    with pytest.raises(OSError) as caught:
        call()
    return caught.value.errno == number


def test_random_reads_agree_with_the_content(served: Served) -> None:
    """Whatever offset and length, pread(2) gives that part: as fsx does, with what applies to a file that is read."""
    chance = random.Random(4711)
    file = os.open(served.path("long"), os.O_RDONLY)
    for _ in range(400):
        offset, size = chance.randrange(len(LONG) + 5000), chance.randrange(1, 140000)
        assert os.pread(file, size, offset) == LONG[offset : offset + size]
    os.close(file)


def test_seeking_and_sending(served: Served) -> None:
    """lseek(2) with every whence, and sendfile(2), which believes in the size."""
    file = os.open(served.path("identity"), os.O_RDONLY)
    assert os.read(file, 2) == b"c0"
    assert os.lseek(file, 0, os.SEEK_SET) == 0
    assert os.lseek(file, 3, os.SEEK_DATA) == 3
    assert os.lseek(file, 3, os.SEEK_HOLE) == 4096
    assert refused(lambda: os.lseek(file, 1 << 20, os.SEEK_DATA), errno.ENXIO)
    os.lseek(file, 0, os.SEEK_SET)
    reader, writer = os.pipe()
    assert os.sendfile(writer, file, None, 4096) == len(b"c0 100000\n")
    assert os.read(reader, 4096) == b"c0 100000\n"
    for fd in (file, reader, writer):
        os.close(fd)


def test_each_reading_is_fresh_and_each_writing_one_value(served: Served) -> None:
    """A descriptor that goes back reads what is there now; a shell's `>` and `>>` both write one value."""
    path = served.path("value")
    reader = os.open(path, os.O_RDONLY)
    for number, mode in ((5, "w"), (6, "a"), (7, "r+")):
        with open(path, mode) as file:
            file.write(f"{number}\n")
        assert os.pread(reader, 100, 0) == b"%d\n" % number
    os.close(reader)
    writer = os.open(path, os.O_WRONLY)
    assert os.write(writer, b"8\n") == 2
    assert os.write(writer, b"junk\n") == 5  # behind the first: no effect, as with the kernel's own
    assert refused(lambda: os.pwrite(writer, b"junk", 0), errno.EINVAL)
    os.close(writer)
    assert pathlib.Path(path).read_bytes() == b"8\n"


def test_containers_do_not_see_each_other(served: Served) -> None:
    """What one stores is its own, fast file or slow."""
    for name in ("value", "slow-value"):
        mine, theirs = served.path(name), served.path(name, "c1")
        pathlib.Path(mine).write_bytes(b"1\n")
        pathlib.Path(theirs).write_bytes(b"2\n")
        assert (pathlib.Path(mine).read_bytes(), pathlib.Path(theirs).read_bytes()) == (b"1\n", b"2\n")


def test_nothing_else_can_be_done(served: Served) -> None:
    """No chmod, chown, utime, mkdir, unlink, rename, link; no extended attributes."""
    top, value = served.path("deep"), served.path("value")
    assert refused(lambda: os.chmod(value, 0o777), errno.EPERM)
    assert refused(lambda: os.chown(value, 0, 0), errno.EPERM)
    assert refused(lambda: os.utime(value), errno.EPERM)
    assert refused(lambda: os.mkdir(f"{top}/new"), errno.EPERM)
    assert refused(lambda: os.open(f"{top}/new", os.O_CREAT | os.O_WRONLY), errno.EPERM)
    assert refused(lambda: os.unlink(f"{top}/er/numbered/1"), errno.EPERM)
    assert refused(lambda: os.rename(f"{top}/er", f"{top}/re"), errno.EPERM)
    assert refused(lambda: os.symlink("x", f"{top}/new"), errno.EPERM)
    assert refused(lambda: os.getxattr(value, "user.x"), errno.EOPNOTSUPP)
    assert os.statvfs(top).f_namemax == 255


def test_directories(served: Served) -> None:
    """A hundred entries, walked, looked up, missed, listed again from the start."""
    numbered = f"{served.path('deep')}/er/numbered"
    assert sorted(os.listdir(numbered), key=int) == [str(number) for number in range(100)]
    with os.scandir(numbered) as entries:
        assert all(entry.is_file(follow_symlinks=False) for entry in entries)
    assert pathlib.Path(f"{numbered}/42").read_bytes() == b"42"
    assert refused(lambda: os.stat(f"{numbered}/100"), errno.ENOENT)
    assert refused(lambda: os.listdir(f"{numbered}/42"), errno.ENOTDIR)
    assert refused(lambda: os.open(numbered, os.O_WRONLY), errno.EISDIR)
    assert refused(lambda: os.stat(f"{numbered}/{'x' * 256}"), errno.ENAMETOOLONG)


def test_owner_is_the_containers_root(served: Served) -> None:
    """Who is not, and is no root of the host, may read what all may read and write nothing."""
    path = served.path("value")
    found = os.stat(path)
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (100000, 100000, 0o644)
    assert found.st_size == 4096
    script = (
        "import os, sys\n"
        "fd = int(sys.argv[1]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))\n"
        "print(len(open(f'/proc/self/fd/{fd}').read()) > 0)\n"
        "try: open(f'/proc/self/fd/{fd}', 'w').write('9'); print('written')\n"
        "except OSError as error: print(error.errno)\n"
    )

    def as_user(uid: int) -> list[str]:
        done = subprocess.run([sys.executable, "-c", script, path.rpartition("/")[2], str(uid)], text=True,
                              capture_output=True, pass_fds=[int(path.rpartition("/")[2])], check=True)  # fmt: skip
        return done.stdout.split()

    assert as_user(100000) == ["True", "written"]
    assert as_user(100001) == ["True", str(errno.EACCES)]


def test_defect_of_a_file_is_its_own(served: Served) -> None:
    """A file that raises answers EIO, the log says where, and the next file is served."""
    assert refused(lambda: pathlib.Path(served.path("broken")).read_bytes(), errno.EIO)
    assert "read /broken: ZeroDivisionError" in served.daemon.log()
    assert pathlib.Path(served.path("identity")).read_bytes() == b"c0 100000\n"


def waiting() -> int:
    """How many threads of ours wait for an answer of FUSE."""
    return sum(
        task.read_text() == "request_wait_answer" for task in pathlib.Path(f"/proc/{os.getpid()}/task").glob("*/wchan")
    )


def test_containers_take_turns(served: Served) -> None:
    """However many requests of one container wait, another one's is among the next."""
    paths = [*(served.path("turns", "c1") for _ in range(40)), served.path("turns")]
    files = [os.open(path, os.O_RDONLY) for path in paths]
    daemon = served.daemon.pid()
    with concurrent.futures.ThreadPoolExecutor(len(files)) as pool:
        os.kill(daemon, signal.SIGSTOP)
        try:
            turns = [pool.submit(os.pread, file, 20, 0) for file in files[:-1]]
            wait_until(lambda: waiting() == len(turns), 30, "requests that wait")
            turns.append(pool.submit(os.pread, files[-1], 20, 0))
            wait_until(lambda: waiting() == len(turns), 30, "one more")
        finally:
            os.kill(daemon, signal.SIGCONT)
        *many, one = (int(turn.result(60)) for turn in turns)
    for file in files:
        os.close(file)
    assert one <= min(many) + 2


def test_many_slow_readers_do_not_hold_up_others(served: Served) -> None:
    """Forty readers of a slow file are served side by side, and meanwhile the other container's files at once."""
    slow, other = served.path("sleep1"), served.path("identity", "c1")
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        readers = [pool.submit(pathlib.Path(slow).read_bytes) for _ in range(40)]
        while not all(reader.done() for reader in readers):
            assert pathlib.Path(other).read_bytes() == b"c1 165536\n"
        assert {reader.result() for reader in readers} == {b"slept\n"}


def test_paths_that_lead_elsewhere_are_refused(served: Served) -> None:
    """No tree outside a container's own."""
    for path in ("../c1/value", "/etc", "deep/../..", "", "deep//er"):
        assert "error" in served.daemon.ask(op="trees", id="c0", paths=[path])[0]
    assert "error" in served.daemon.ask(op="trees", id="c2", paths=["value"])[0]


@pytest.mark.slow
def test_a_container_costs_little(served: Served, record_property: object) -> None:
    """A hundred more containers take at most 64 KiB of the daemon each."""

    def resident() -> int:
        text = pathlib.Path(f"/proc/{served.daemon.pid()}/smaps_rollup").read_text()
        return int(next(line.split()[1] for line in text.splitlines() if line.startswith("Pss:")))

    ids = [f"m{number}" for number in range(100)]
    before = resident()
    served.daemon.register(*ids)
    grown = resident() - before
    served.daemon.unregister(*ids)
    print(f"{grown / 100:.1f} KiB a container")
    assert grown <= 64 * 100

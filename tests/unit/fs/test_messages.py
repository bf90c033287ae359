"""The log of a daemon that a launch has started: nobody rotates it but the daemon."""

import os
import pathlib
import resource

from sysvisor_fs import messages


def test_long_log_is_put_aside(tmp_path: pathlib.Path) -> None:
    """Beyond a megabyte it becomes PATH.1 and a new one is begun; two writers do not put it aside twice."""
    path = tmp_path / "sysvisor-fs.log"
    kept = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) for _ in range(2)]
    daemon, holder = (messages.Rotated(str(path), fd) for fd in kept)
    path.write_bytes(b"x" * (messages.LONGEST + 1))
    daemon.write(b"one\n")
    holder.write(b"two\n")
    daemon.write(b"three\n")
    for fd in kept:
        os.write(fd, b"and a traceback\n")
        assert os.get_inheritable(fd)
        os.close(fd)
    assert path.read_bytes() == b"one\ntwo\nthree\n" + 2 * b"and a traceback\n"
    assert (tmp_path / "sysvisor-fs.log.1").stat().st_size == messages.LONGEST + 1
    assert path.stat().st_mode & 0o777 == 0o600


def test_no_descriptor_is_left(tmp_path: pathlib.Path) -> None:
    """That there is none is what has to be said."""
    path = tmp_path / "sysvisor-fs.log"
    kept = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    log = messages.Rotated(str(path), kept)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        log.write(b"one\n")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    os.close(kept)
    assert path.read_bytes() == b"one\n"


def test_another_file_is_left_alone(tmp_path: pathlib.Path) -> None:
    """Only a descriptor of the file of that name is taken for it."""
    path, link = tmp_path / "log", tmp_path / "link"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    link.symlink_to(path)
    try:
        assert messages._is_open_as(fd, str(path))
        assert not messages._is_open_as(fd, str(link))
        assert not messages._is_open_as(fd, str(tmp_path / "none"))
        path.rename(tmp_path / "log.1")
        assert not messages._is_open_as(fd, str(path))
    finally:
        os.close(fd)

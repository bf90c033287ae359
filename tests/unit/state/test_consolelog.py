"""The log of a terminal: bounded, whole, and honest about what it could not keep."""

import os
import pathlib

from sysvisor_runc.state import consolelog
from sysvisor_runc.state.consolelog import ConsoleLog


def opened(path: pathlib.Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def kept(path: pathlib.Path) -> bytes:
    fd = opened(path)
    try:
        return b"".join(data for _, _, data in consolelog.read(fd))
    finally:
        os.close(fd)


def test_what_is_written_is_read(tmp_path: pathlib.Path) -> None:
    """Bytes come back as they were, with their position, also after the log was opened anew."""
    log = ConsoleLog(opened(tmp_path))
    log.write(b"one\r\n")
    log.write(b"\x00\xff")
    log.close()
    log = ConsoleLog(opened(tmp_path))
    assert log.position == 7
    log.write(b"three")
    log.close()
    assert kept(tmp_path) == b"one\r\n\x00\xffthree"


def test_it_is_bounded(tmp_path: pathlib.Path) -> None:
    """The oldest output goes; what is kept is the end, without a gap."""
    log = ConsoleLog(opened(tmp_path), bound=2000)
    whole = b""
    for number in range(1000):
        line = b"line %d\n" % number
        whole += line
        log.write(line)
    log.close()
    found = kept(tmp_path)
    assert whole.endswith(found)
    assert len(found) > 1000
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 4 * 2000
    assert len(list(tmp_path.iterdir())) == 4


def test_a_damaged_end_is_left_out(tmp_path: pathlib.Path) -> None:
    """A piece that a crash cut short is not taken for output."""
    log = ConsoleLog(opened(tmp_path))
    log.write(b"whole")
    log.close()
    with open(tmp_path / consolelog.FILE, "ab") as file:
        file.write(b"\x01" * 30)
    assert kept(tmp_path) == b"whole"


def test_a_damaged_end_hides_nothing(tmp_path: pathlib.Path) -> None:
    """Whoever goes on after a crash in the midst of a write cuts off what that has left: what follows can be read."""
    log = ConsoleLog(opened(tmp_path))
    log.write(b"whole")
    log.write(b"cut short" * 1000)
    log.close()
    os.truncate(tmp_path / consolelog.FILE, os.stat(tmp_path / consolelog.FILE).st_size - 4096)
    log = ConsoleLog(opened(tmp_path))
    log.write(b" and more" * 1000)
    log.close()
    assert kept(tmp_path) == b"whole" + b" and more" * 1000


def test_a_directory_that_is_gone(tmp_path: pathlib.Path) -> None:
    """Without a place to write to, output is counted and the writer goes on."""
    place = tmp_path / "place"
    place.mkdir()
    log = ConsoleLog(opened(place))
    place.rmdir()
    log.write(b"12345")
    log.write(b"678")
    assert log.lost == 8
    assert log.position == 8
    log.close()


def test_what_is_missing_is_told(tmp_path: pathlib.Path) -> None:
    """Once the log can be written again it says how much could not be kept, and goes on."""
    place, aside = tmp_path / "place", tmp_path / "aside"
    place.mkdir()
    log = ConsoleLog(opened(place))
    (place / consolelog.FILE).symlink_to("elsewhere")  # which is not followed
    log.write(b"12345")
    log.write(b"678")
    (place / consolelog.FILE).rename(aside)
    log.write(b"after")
    assert log.position == 13
    log.close()
    assert kept(place) == b"\r\n[sysvisor-runc: 8 bytes of output could not be kept]\r\nafter"

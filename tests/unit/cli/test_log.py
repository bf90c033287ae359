"""Log lines: readable by whatever reads runc's."""

import datetime
import json
import os
import pathlib
import time

import pytest

from sysvisor_runc import log as sayings
from sysvisor_runc.cli import log


@pytest.fixture(autouse=True)
def _nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test starts, and leaves, with the default sink."""
    monkeypatch.setattr(sayings, "_sink", sayings.to_stderr)
    monkeypatch.setattr(sayings, "_threshold", sayings._RANKS["warning"])


def test_json_line_is_logrus_s() -> None:
    """One object with level, msg and an RFC 3339 time in this order, whatever the message holds."""
    message = 'a "b"\n\\ é\udce9\x00'
    line = log.json_line("error", message)
    assert line.endswith("}\n")
    value = json.loads(line)
    assert list(value) == ["level", "msg", "time"]
    assert value["level"] == "error"
    assert value["msg"] == message
    assert datetime.datetime.fromisoformat(value["time"]).tzinfo is not None


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("plain-word_1.2/3@4^5+", "plain-word_1.2/3@4^5+"),
        ("two words", '"two words"'),
        ("", ""),
        ('say "x"', '"say \\"x\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("a\nb\tc\rd", '"a\\nb\\tc\\rd"'),
        ("é", '"é"'),
        ("\x00\x1b", '"\\x00\\x1b"'),
        ("\udce9", '"\\xe9"'),
        ("\u2028", '"\\u2028"'),
        ("\U000e0001", '"\\U000e0001"'),
    ],
)
def test_text_line_quotes_as_go_does(message: str, shown: str) -> None:
    """What is not plain stands in quotes on one line, so that a reader can undo it."""
    line = log.text_line("debug", message)
    assert line.partition(" msg=")[2] == shown + "\n"
    assert " level=debug " in line


@pytest.mark.parametrize(("zone", "suffix"), [("UTC0", "Z"), ("AAA-5:30", "+05:30"), ("AAA3:30", "-03:30")])
def test_times_carry_their_zone(monkeypatch: pytest.MonkeyPatch, zone: str, suffix: str) -> None:
    """Local time with its offset, Z for UTC."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        stamp = log.timestamp()
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    assert stamp.endswith(suffix)
    assert len(stamp) == len("2024-05-06T07:08:09") + len(suffix)


def test_the_log_file_is_out_of_the_way(tmp_path: pathlib.Path) -> None:
    """It is appended to, closed on exec, and not among the low descriptors that callers hand on."""
    path = tmp_path / "log"
    path.write_text("before\n")
    fd = log._open(str(path))
    try:
        assert fd >= 200
        assert not os.get_inheritable(fd)
        os.write(fd, b"after\n")
    finally:
        os.close(fd)
    assert path.read_text() == "before\nafter\n"


def test_warnings_are_heard_by_default(capfd: pytest.CaptureFixture[str]) -> None:
    """Without any setting, warnings and errors go to standard error, one line each, and nothing else does."""
    assert sayings.is_default()
    assert not sayings.debugging()
    sayings.debug("d")
    sayings.info("i")
    sayings.warning("w\nx")
    sayings.error("e")
    assert capfd.readouterr().err == "sysvisor-runc: warning: w x\nsysvisor-runc: error: e\n"


def test_a_sink_hears_its_level_and_above() -> None:
    """Whoever listens gets what was asked for."""
    heard: list[tuple[str, str]] = []
    sayings.listen(lambda level, message: heard.append((level, message)), "info")
    for say in (sayings.debug, sayings.info, sayings.warning, sayings.error):
        say("m")
    assert heard == [("info", "m"), ("warning", "m"), ("error", "m")]

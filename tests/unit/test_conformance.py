"""How the results of runc's own suite are read and judged."""

import pathlib

import pytest

from tests.conformance.run import HERE, Expected, Results, judge, missing

OUTPUT = """1..4\r
ok 1 it works
not ok 2 it prints runc's own words
# (in test file run.bats, line 3)
ok 3 it does what this machine cannot # skip requires cgroups_hugetlb
not ok 4 it works, too
"""


def expected(tmp_path: pathlib.Path, *lines: str) -> Expected:
    (tmp_path / "expected.txt").write_text("\n".join(("# a comment", *lines)))
    return Expected(tmp_path / "expected.txt")


def test_reading() -> None:
    """Verdicts, the reasons of what was skipped, and how many there should have been."""
    results = Results(OUTPUT)
    assert [results.count(kind) for kind in ("pass", "fail", "skip")] == [1, 2, 1]
    assert results.reasons == {"it does what this machine cannot": "requires cgroups_hugetlb"}
    assert results.planned == 4


def test_only_what_is_not_listed_is_a_surprise(tmp_path: pathlib.Path) -> None:
    """A failure that is listed is none; a listed one that passes, or that the suite no longer has, is."""
    listed = expected(tmp_path, "run | differs | it prints runc's own words | wording", "exec | machine | x | y")
    assert judge("run", Results(OUTPUT), listed) == ["run: fails: it works, too"]
    better = Results(OUTPUT.replace("not ok", "ok"))
    assert judge("run", better, listed) == ["run: passes, though it is listed to differ: it prints runc's own words"]
    assert missing("exec", Results("1..0"), listed) == ["exec: is listed but was not run: x"]


@pytest.mark.parametrize("text", ["", "1..5\nok 1 it works\n"])
def test_a_file_that_breaks_off_is_a_surprise(tmp_path: pathlib.Path, text: str) -> None:
    """Fewer results than were announced are never taken for success."""
    assert len(judge("run", Results(text), expected(tmp_path))) == 1


def test_a_line_without_a_reason_is_refused(tmp_path: pathlib.Path) -> None:
    """The list must say why, and in words that it knows."""
    for line in ("run | differs | it works", "run | whatever | it works | why"):
        with pytest.raises(SystemExit, match="FILE"):
            expected(tmp_path, line)


def test_our_own_lists_can_be_read() -> None:
    """Those of this project are well formed, and the second one adds to the first."""
    both = Expected(HERE / "expected.txt", HERE / "expected-syscont.txt")
    assert len(both.entries) >= len(Expected(HERE / "expected.txt").entries) > 0

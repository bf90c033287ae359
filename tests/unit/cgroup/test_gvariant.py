"""GVariant's text format: what annotations may say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysvisor_runc.cgroup.gvariant import parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", ("b", True)),
        (" boolean false ", ("b", False)),
        ("5", ("i", 5)),
        ("-5", ("i", -5)),
        ("0x1f", ("i", 31)),
        ("010", ("i", 8)),
        ("0", ("i", 0)),
        ("1.5", ("d", 1.5)),
        ("1e3", ("d", 1000.0)),
        ("double 2", ("d", 2.0)),
        ("byte 0xff", ("y", 255)),
        ("uint64 18446744073709551615", ("t", 2**64 - 1)),
        ("int64 -9223372036854775808", ("x", -(2**63))),
        ("'it\\'s'", ("s", "it's")),
        ('"tab\\t\\u00e4"', ("s", "tab\tä")),
        ("objectpath '/a/b'", ("o", "/a/b")),
        ("@t 7", ("t", 7)),
        ("[1, 2]", ("ai", [1, 2])),
        ("[byte 1, 2]", ("ay", b"\1\2")),
        ("@as []", ("as", [])),
        ("[['a'], []]", ("aas", [["a"], []])),
        ("('a', true, uint32 3)", ("(sbu)", ("a", True, 3))),
        ("[('/dev/null', 'rw')]", ("a(ss)", [("/dev/null", "rw")])),
        ("@a(st) [('a', 1), ('b', 2)]", ("a(st)", [("a", 1), ("b", 2)])),
        ("{'a': 1, 'b': 2}", ("a{si}", {"a": 1, "b": 2})),
        ("@a{sv} {'a': <1>}", ("a{sv}", {"a": ("i", 1)})),
        ("<'x'>", ("v", ("s", "x"))),
    ],
)
def test_values(text: str, value: object) -> None:
    """Every form comes out with its type."""
    assert parse(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "uint64", "uint64 -1", "int32 2147483648", "5 5", "'a", "[]", "{}", "()", "[1, 'a']", "nonsense", "uint32 'a'",
     "string 5", "@as [1]", "(1", "{'a' 1}", "@(ss) ('a',)", "@(s) ('a', 'b')", "[" * 100, "<1", "{[1]: 2}", "'\\u12'"],
)  # fmt: skip
def test_nonsense(text: str) -> None:
    """What cannot be read, or does not fit its type, is a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        parse(text)


@given(st.text("abt01e.-+ '\"[](){}<>@\\,:xu", max_size=30))
def test_anything_is_read_or_refused(text: str) -> None:
    """Whatever the text, there is a value or a ValueError."""
    try:
        parse(text)
    except ValueError:
        pass


@given(st.integers(0, 2**64 - 1), st.text(max_size=20))
def test_numbers_and_strings_survive(number: int, text: str) -> None:
    """What is written out in the format comes back."""
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    assert parse(f"(uint64 {number}, '{quoted}')") == ("(ts)", (number, text))

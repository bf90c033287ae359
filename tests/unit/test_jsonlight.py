"""JSON reading and writing: agrees with the standard library, names the place of every error, loads nothing heavy."""

import json
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysvisor_runc import jsonlight
from sysvisor_runc.jsonlight import JSONError, dumps, loads

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30)


@given(VALUES)
def test_compact_text_reads_back(value: object) -> None:
    """What dumps writes, both loads and the standard library read back unchanged."""
    assert loads(dumps(value)) == value
    assert json.loads(dumps(value)) == value


@given(VALUES, st.sampled_from([1, 2, "\t", "    "]))
def test_indented_text_is_the_standard_librarys(value: object, indent: int | str) -> None:
    """Indented output is byte for byte that of json.dumps, which Go's MarshalIndent agrees with."""
    assert dumps(value, indent) == json.dumps(value, indent=indent, ensure_ascii=False)


@given(VALUES)
def test_loads_agrees_with_the_standard_library(value: object) -> None:
    """Any text that the standard library writes is read as it reads it."""
    for text in (json.dumps(value), json.dumps(value, indent=3), f" \r\n\t{json.dumps(value)}\n "):
        assert loads(text) == json.loads(text)
        assert loads(text.encode()) == json.loads(text)


@given(st.text(alphabet='{}[]",:0123456789.eE+-truefalsn\\u \n', max_size=12))
def test_syntax_agrees_with_the_standard_library(text: str) -> None:
    """Nonsense is refused exactly where the standard library refuses it, and never with another exception."""
    try:
        expected = json.loads(text, parse_constant=pytest.fail)
    except (ValueError, pytest.fail.Exception):
        with pytest.raises(JSONError):
            loads(text)
    else:
        assert loads(text) == expected


@pytest.mark.parametrize(
    ("text", "line", "column", "problem"),
    [
        ("", 1, 1, "unexpected end"),
        ("  \n ", 2, 2, "unexpected end"),
        ("x", 1, 1, "expecting a value"),
        ("{]", 1, 2, "expecting property name enclosed in double quotes"),
        ('{\n  "a": 1,\n  "b" 2\n}', 3, 7, "expecting ':' delimiter"),
        ("[1,\n 2 3]", 2, 4, "expecting ',' delimiter"),
        ("[1] x", 1, 5, "unexpected text after the value"),
        ("{}\n\n {}", 3, 2, "unexpected text after the value"),
        ('"abc', 1, 1, "unterminated string starting at"),
        ('{"NaN": "\\"NaN",\n "k": NaN}', 2, 7, "NaN is not a JSON value"),
        ("[-Infinity]", 1, 2, "-Infinity is not a JSON value"),
        (b'{"a":\n "\xff"}', 2, 3, "invalid UTF-8: byte 0xff"),
        (b"\xed\xb0\x80", 1, 1, "invalid UTF-8: byte 0xed"),
        ("[\n" + "7" * 5000 + "]", 2, 1, "number too long"),
        ("\ufeff{}", 1, 1, "expecting a value"),
    ],
)
def test_error_names_the_place(text: str | bytes, line: int, column: int, problem: str) -> None:
    """A syntax error says line, column and problem."""
    with pytest.raises(JSONError) as caught:
        loads(text)
    assert (caught.value.line, caught.value.column, caught.value.problem) == (line, column, problem)
    assert str(caught.value) == f"line {line}, column {column}: {problem}"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000])
def test_nesting_is_bounded(text: str) -> None:
    """Nesting beyond the interpreter's limit is an error, not a crash."""
    with pytest.raises(JSONError, match="nested too deeply"):
        loads(text)


def test_last_duplicate_wins() -> None:
    """Of a key given twice the last value counts, as for the standard library and for Go."""
    assert loads('{"a": 1, "b": 2, "a": 3}') == {"a": 3, "b": 2}


def test_compact_is_compact() -> None:
    """Compact output has no spaces and keeps the order of insertion."""
    assert dumps({"z": [1, {"a": None}], "b": True}) == '{"z":[1,{"a":null}],"b":true}'


def test_non_ascii_stays_and_lone_surrogates_are_escaped() -> None:
    """UTF-8 is kept; a file name that is not UTF-8 survives a round trip through an UTF-8 file."""
    name = b"caf\xc3\xa9-\xff".decode("utf-8", "surrogateescape")
    text = dumps({"path": name})
    assert text == '{"path":"café-\\udcff"}'
    assert loads(text.encode()) == {"path": name}
    assert loads(dumps([name], 2).encode()) == [name]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object(), math.nan, math.inf, {(1, 2): 3}])
def test_unwritable_values_are_refused(value: object, indent: int | None) -> None:
    """What JSON cannot hold is a JSONError in both layouts, also deep inside."""
    with pytest.raises(JSONError):
        dumps(["x", {"a": [value]}], indent)


@pytest.mark.parametrize("indent", [None, 2])
def test_cycles_are_refused(indent: int | None) -> None:
    """A value that contains itself is an error, not a crash."""
    cycle: list[object] = []
    cycle.append(cycle)
    with pytest.raises(JSONError, match="nested too deeply"):
        dumps(cycle, indent)


def test_error_without_a_place_has_no_line() -> None:
    """An error that belongs to no place in a text does not pretend to."""
    assert str(JSONError("nested too deeply")) == "nested too deeply"


def test_success_path_loads_no_package() -> None:
    """Reading and writing load neither json nor re nor enum; a syntax error may."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from sysvisor_runc import jsonlight\n"
        "jsonlight.loads(b'{\"a\": [1.5, null]}'); jsonlight.dumps({'é': [1]}, 2); jsonlight.dumps('\\udcff')\n"
        "assert not {'json', 're', 'enum', 'typing'} & set(sys.modules), sorted(sys.modules)\n"
        "try: jsonlight.loads('{]')\n"
        "except jsonlight.JSONError as error: print(error.column)\n"
    )
    root = jsonlight.__file__.rpartition("/sysvisor_runc/")[0]
    result = subprocess.run([sys.executable, "-SI", "-c", program, root], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("2\n", "")

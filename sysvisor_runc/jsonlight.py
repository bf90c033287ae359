"""JSON at C speed and without the `json` package, which would pull in `re` and `enum` (10 ms at start-up).

Stands on `_json`, the extension that `json` itself stands on. `json` is loaded only to learn where a syntax error is:
that path ends the command anyway.
"""

from __future__ import annotations

import _json
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Never

_WHITESPACE = " \t\n\r"


class JSONError(ValueError):
    """The text is not JSON, or the value cannot be written as JSON.

    `line` and `column` count from 1 (0 when there is no text to point at), `problem` says what is wrong there.
    """

    def __init__(self, problem: str, line: int = 0, column: int = 0) -> None:
        super().__init__(f"line {line}, column {column}: {problem}" if line else problem)
        self.problem = problem
        self.line = line
        self.column = column


class _Context:
    """What the C scanner asks of a decoder."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int

    @staticmethod
    def parse_constant(name: str) -> Never:
        """NaN, Infinity and -Infinity are JavaScript's, not JSON's."""
        raise _ConstantError(name)


class _ConstantError(Exception):
    pass


_scan_once = _json.make_scanner(_Context)  # type: ignore[arg-type]  # the stub names the scanner where a decoder is meant


def loads(text: str | bytes) -> object:
    """The value of a JSON text (RFC 8259); of a duplicate key the last one counts.

    Raises JSONError with the place: syntax, invalid UTF-8, anything after the value, nesting beyond the interpreter's
    recursion limit.
    """
    source = text if isinstance(text, str) else _decode(text)
    start = len(source) - len(source.lstrip(_WHITESPACE))
    value, end = _scan(source, start)
    if end != len(source) and source[end:].strip(_WHITESPACE):
        rest = source[end:]
        raise _error(source, len(source) - len(rest.lstrip(_WHITESPACE)), "unexpected text after the value")
    return value


def _scan(source: str, start: int) -> tuple[object, int]:
    try:
        value, end = _scan_once(source, start)
    except StopIteration as stop:
        problem = "unexpected end" if stop.value >= len(source) else "expecting a value"
        raise _error(source, stop.value, problem) from None
    except SystemError:
        # The C code takes its exception class out of json.decoder, but only if something has imported that already.
        import json.decoder  # noqa: F401

        return _scan(source, start)
    except RecursionError:
        raise JSONError("nested too deeply") from None
    except _ConstantError as constant:
        name = str(constant)
        raise _error(source, _outside_strings(source, name), f"{name} is not a JSON value") from None
    except ValueError as error:
        if (position := getattr(error, "pos", None)) is not None:
            raise _error(source, position, _lower(str(getattr(error, "msg", error)))) from None
        # The interpreter refuses to convert endless digits, and does not say where they are.
        digits = "0" * (sys.get_int_max_str_digits() + 1)
        raise _error(source, _outside_strings(source, digits), "number too long") from None
    return value, end


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        raise _error(before, len(before), f"invalid UTF-8: byte 0x{data[error.start]:02x}") from None


def _error(source: str, position: int, problem: str) -> JSONError:
    line = source.count("\n", 0, position) + 1
    return JSONError(problem, line, position - source.rfind("\n", 0, position))


def _outside_strings(source: str, token: str) -> int:
    """Where `token` (a name, or zeros standing for as many digits) begins as a value of its own."""
    inside = False
    position = 0
    wanted = token if not token.startswith("0") else ""
    while position < len(source):
        if source[position] == "\\":
            position += 1
        elif source[position] == '"':
            inside = not inside
        elif not inside:
            if wanted and source.startswith(wanted, position):
                break
            if not wanted and source[position].isdigit() and source[position : position + len(token)].isdigit():
                break
        position += 1
    return position


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _refuse(value: object) -> Never:
    raise JSONError(f"a {type(value).__name__} is not a JSON value")


_encode = _json.make_encoder(None, _refuse, _json.encode_basestring, None, ":", ",", False, False, False)


def dumps(value: object, indent: int | str | None = None) -> str:
    r"""The JSON text of a value, keys in insertion order, laid out as Go's encoding/json does.

    Without `indent` compact; else one element per line, `indent` being the text of one level or its number of spaces.
    Non-ASCII stays as it is, but a lone surrogate (a file name that is not UTF-8) becomes `\udcXX`, which `loads` reads
    back. Raises JSONError for what JSON cannot hold: other types, NaN, cycles.
    """
    try:
        if indent is None:
            text = "".join(_encode(value, 0))
        else:
            parts: list[str] = []
            _write(value, "\n", " " * indent if isinstance(indent, int) else indent, parts)
            text = "".join(parts)
    except RecursionError:
        raise JSONError("nested too deeply") from None
    except (TypeError, ValueError) as error:
        if isinstance(error, JSONError):
            raise
        raise JSONError(_lower(str(error))) from None
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()


def _write(value: object, newline: str, step: str, parts: list[str]) -> None:
    """Appends the indented text; `newline` is the line break with the indentation of the value's own line."""
    if isinstance(value, dict):
        opening, closing = "{", "}"
    elif isinstance(value, list | tuple):
        opening, closing = "[", "]"
    else:
        parts.extend(_encode(value, 0))
        return
    if not value:
        parts.append(opening + closing)
        return
    inner = newline + step
    separator = opening + inner
    for item in value:
        parts.append(separator)
        if isinstance(value, dict):
            # As an object of its own the key gets the encoder's treatment of keys (numbers, booleans, refusals).
            parts.append("".join(_encode({item: 0}, 0))[1:-2] + " ")
            _write(value[item], inner, step, parts)
        else:
            _write(item, inner, step, parts)
        separator = "," + inner
    parts.append(newline + closing)

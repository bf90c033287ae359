"""Values in GVariant's text format, as annotations give them: `uint64 123`, `'text'`, `['a', 'b']`, `@as []`.

Pure; loaded only where there is such an annotation. The format is GLib's ("GVariant Text Format"); a value comes out as
D-Bus has it, `(type, value)`: dict for `a{…}`, list for other arrays (bytes for `ay`), tuple for `(…)`, such a pair for
a variant. Numbers without a type are int32, or double with a point or an exponent.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    Typed = tuple[str, object]

_KEYWORDS = {
    "boolean": "b",
    "byte": "y",
    "int16": "n",
    "uint16": "q",
    "int32": "i",
    "handle": "h",
    "uint32": "u",
    "int64": "x",
    "uint64": "t",
    "double": "d",
    "string": "s",
    "objectpath": "o",
    "signature": "g",
}
_BITS = {"y": (8, False), "n": (16, True), "q": (16, False), "i": (32, True), "h": (32, False), "u": (32, False),
         "x": (64, True), "t": (64, False)}  # fmt: skip
_TEXTS = "sog"
_CLOSING = {"[": "]", "(": ")", "{": "}", "<": ">"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_DEPTH = 16


def parse(text: str) -> Typed:
    """The one value in `text`. Raises ValueError with what is wrong."""
    reader = _Reader(text)
    value = reader.value("", 0)
    reader.skip()
    if reader.at < len(text):
        raise ValueError(f"something follows the value: {text[reader.at :]!r}")
    return value


def seconds(value: Typed) -> int:
    """A number of seconds as microseconds. Raises ValueError: it is no number, or negative."""
    type_, number = value
    if not (type_ in _BITS or type_ == "d") or not isinstance(number, int | float):
        raise ValueError("not a number")
    result = int(number * 1_000_000)
    if not 0 <= result < 1 << 64:
        raise ValueError("no such time span")
    return result


class _Reader:
    """The text and how far it has been read."""

    __slots__ = ("at", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def skip(self) -> None:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1

    def peek(self) -> str:
        """The next character that is not blank; "" at the end."""
        self.skip()
        return self.text[self.at : self.at + 1]

    def take(self, wanted: str) -> bool:
        if self.peek() != wanted or not wanted:
            return False
        self.at += 1
        return True

    def expect(self, wanted: str) -> None:
        if not self.take(wanted):
            raise ValueError(f"expected {wanted!r} at {self.text[self.at :]!r}")

    def value(self, type_: str, depth: int) -> Typed:
        """A value; of `type_` unless that is ""."""
        if depth > _DEPTH:
            raise ValueError("too deep")
        first = self.peek()
        if first == "":
            raise ValueError("a value is missing")
        if first == "@":
            self.at += 1
            return self._same(type_, self.value(self._word("(){}"), depth + 1))
        if first in "'\"":
            return self._checked(type_ or "s", _TEXTS, self._string(first))
        if first in _CLOSING:
            self.at += 1
            return self._container(first, type_, depth + 1)
        word = self._word("")
        if word in _KEYWORDS:
            return self._same(type_, self.value(_KEYWORDS[word], depth + 1))
        if word in ("true", "false"):
            return self._checked(type_ or "b", "b", word == "true")
        return _number(word, type_)

    def _checked(self, type_: str, allowed: str, value: object) -> Typed:
        if type_ not in allowed:
            raise ValueError(f"{value!r} is not of type {type_!r}")
        return type_, value

    def _same(self, type_: str, value: Typed) -> Typed:
        if type_ not in ("", value[0]):
            raise ValueError(f"type {value[0]!r} is not {type_!r}")
        return value

    def _word(self, more: str) -> str:
        start = self.at
        while self.at < len(self.text) and (self.text[self.at].isalnum() or self.text[self.at] in "+-._" + more):
            self.at += 1
        if start == self.at:
            raise ValueError(f"no value begins with {self.text[start:]!r}")
        return self.text[start : self.at]

    def _string(self, quote: str) -> str:
        parts = []
        self.at += 1
        while (char := self.text[self.at : self.at + 1]) != quote:
            self.at += 1
            if char == "":
                raise ValueError("the closing quote is missing")
            if char == "\\":
                char = self._escaped()
            parts.append(char)
        self.at += 1
        return "".join(parts)

    def _escaped(self) -> str:
        char = self.text[self.at : self.at + 1]
        self.at += 1
        if char in ("u", "U"):
            size = 4 if char == "u" else 8
            digits = self.text[self.at : self.at + size]
            self.at += size
            return chr(int(digits, 16))
        return _ESCAPES.get(char, char)

    def _container(self, opening: str, type_: str, depth: int) -> Typed:
        if opening == "[":
            return self._array(type_, depth)
        if opening == "(":
            return self._tuple(type_, depth)
        if opening == "{":
            return self._dictionary(type_, depth)
        inner = self.value("", depth)
        self.expect(">")
        return self._checked(type_ or "v", "v", inner)

    def _array(self, type_: str, depth: int) -> Typed:
        if type_ and not type_.startswith("a"):
            raise ValueError(f"an array is not of type {type_!r}")
        element = type_[1:]
        values: list[object] = []
        while not self.take("]"):
            if values:
                self.expect(",")
            element, value = self.value(element, depth)
            values.append(value)
        if not element:
            raise ValueError("an empty array needs a type, such as @as []")
        return f"a{element}", bytes(values) if element == "y" else values  # type: ignore[arg-type]  # checked numbers

    def _tuple(self, type_: str, depth: int) -> Typed:
        wanted = _split(type_[1:-1]) if type_.startswith("(") else []
        if type_ and not wanted:
            raise ValueError(f"a tuple is not of type {type_!r}")
        found: list[Typed] = []
        while not self.take(")"):
            if found:
                self.expect(",")
                if self.take(")"):
                    break
            if wanted and len(found) == len(wanted):
                raise ValueError(f"too many values for {type_!r}")
            found.append(self.value(wanted[len(found)] if wanted else "", depth))
        if not found or len(found) < len(wanted):
            raise ValueError("a tuple lacks values")
        return f"({''.join(one[0] for one in found)})", tuple(one[1] for one in found)

    def _dictionary(self, type_: str, depth: int) -> Typed:
        if type_ and not type_.startswith("a{"):
            raise ValueError(f"a dictionary is not of type {type_!r}")
        key_type, value_type = type_[2:3], type_[3:-1]
        found: dict[object, object] = {}
        while not self.take("}"):
            if found:
                self.expect(",")
            key_type, key = self.value(key_type, depth)
            self.expect(":")
            value_type, value = self.value(value_type, depth)
            if isinstance(key, list | dict | tuple):
                raise ValueError("a key must be a plain value")
            found[key] = value
        if not key_type:
            raise ValueError("an empty dictionary needs a type, such as @a{ss} {}")
        return f"a{{{key_type}{value_type}}}", found


def _number(word: str, type_: str) -> Typed:
    digits = word.lstrip("+-")
    hexadecimal = digits[:2].lower() == "0x"
    if type_ == "d" or (not type_ and not hexadecimal and digits[:1].isdigit() and set(digits) & set(".eE")):
        return "d", float(word)
    type_ = type_ or "i"
    if type_ not in _BITS:
        raise ValueError(f"{word!r} is not of type {type_!r}")
    octal = len(digits) > 1 and digits[0] == "0" and digits.isdigit()
    number = int(word, 8 if octal else 0)
    bits, signed = _BITS[type_]
    lowest = -(1 << bits - 1) if signed else 0
    if not lowest <= number < lowest + (1 << bits):
        raise ValueError(f"{word} does not fit into type {type_!r}")
    return type_, number


def _split(types: str) -> list[str]:
    """The complete types in a row of them: `sa{sv}(ii)` → `s`, `a{sv}`, `(ii)`."""
    found, start, depth = [], 0, 0
    for index, char in enumerate(types):
        depth += (char in "({") - (char in ")}")
        if depth == 0 and char != "a":
            found.append(types[start : index + 1])
            start = index + 1
    return found

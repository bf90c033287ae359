"""What the kernel takes for a value of a sysctl, and how it prints it (kernel/sysctl.c). Pure.

A parser gets what was there and what a write(2) brought, and returns what is there now; it raises OSError EINVAL as the
kernel's does.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Parser = Callable[[bytes, bytes], bytes]

INT_MAX = (1 << 31) - 1
INT_MIN = -(1 << 31)
UINT_MAX = (1 << 32) - 1
ULONG_MAX = (1 << 64) - 1
_SPACE = b" \t\n\v\f\r"
_SEPARATORS = b" \t\n"
_PAGE = 4096
_LONGEST = 21  # TMPBUFLEN - 1: characters of one number
_DIGITS = {8: b"01234567", 10: b"0123456789", 16: b"0123456789abcdefABCDEF"}


def invalid() -> OSError:
    """EINVAL."""
    return OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def _number(text: bytes, at: int) -> tuple[int, int]:
    """proc_get_long(): the number at a place and where it ends; base as in C, a separator or the end behind it."""
    word = text[at : at + _LONGEST]
    negative = word[:1] == b"-" and len(text) - at > 1
    digits = word[1:] if negative else word
    if not digits[:1].isdigit():
        raise invalid()
    base = 10
    start = 0
    if digits[:1] == b"0":
        base = 8
        if digits[1:2] in (b"x", b"X") and digits[2:3] and digits[2:3] in _DIGITS[16]:
            base, start = 16, 2
    end = start
    while end < len(digits) and digits[end : end + 1] in _DIGITS[base]:
        end += 1
    value = int(digits[start:end], base)
    if value > ULONG_MAX:
        raise invalid()
    end += negative
    if end == len(word) == _LONGEST:
        raise invalid()  # more digits than the kernel looks at
    if at + end < len(text) and text[at + end] not in _SEPARATORS:
        raise invalid()
    return (-value if negative else value), at + end


def numbers(text: bytes, most: int) -> list[int]:
    """The first numbers of a write, one at least."""
    text = text[: _PAGE - 1].partition(b"\0")[0]
    found: list[int] = []
    at = 0
    while len(found) < most:
        while at < len(text) and text[at] in _SPACE:
            at += 1
        if at == len(text):
            break
        value, at = _number(text, at)
        found.append(value)
    if not found:
        raise invalid()
    return found


def integers(low: int = INT_MIN, high: int = INT_MAX, count: int = 1) -> Parser:
    """proc_dointvec_minmax(): so many of them in this range; a write of fewer leaves the rest as it was."""

    def parse(before: bytes, data: bytes) -> bytes:
        found = numbers(data, count)
        if any(not low <= value <= high for value in found):
            raise invalid()
        rest = [int(word) for word in before.split()][len(found) :]
        return b"\t".join(b"%d" % value for value in (*found, *rest)) + b"\n"

    return parse


def unsigned(low: int = 0, high: int = ULONG_MAX) -> Parser:
    """proc_doulongvec_minmax(): one of them. Older kernels skip a negative one without a word, newer ones refuse it."""

    def parse(before: bytes, data: bytes) -> bytes:
        (value,) = numbers(data, 1)
        if data.lstrip(_SPACE)[:1] == b"-" or not low <= value <= high:
            raise invalid()
        return b"%d\n" % value

    return parse


def increasing(parser: Parser, last: bytes) -> Parser:
    """Once at `last` it stays there until the machine starts anew (yama_dointvec_minmax)."""

    def parse(before: bytes, data: bytes) -> bytes:
        after = parser(before, data)
        if before.strip() == last and after.strip() != last:
            raise invalid()
        return after

    return parse


def one_of(*words: bytes, otherwise: int = errno.EINVAL) -> Parser:
    """proc_dostring() with a known set."""

    def parse(before: bytes, data: bytes) -> bytes:
        word = data.partition(b"\n")[0].partition(b"\0")[0].strip()
        if word not in words:
            raise OSError(otherwise, os.strerror(otherwise))
        return word + b"\n"

    return parse

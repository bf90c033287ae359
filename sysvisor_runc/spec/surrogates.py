r"""Finds what JSON can say and the system cannot: half of a surrogate pair, such as `\ud800`.

Loaded by `load` only for a file that writes one. `\udc80` to `\udcff` stand for single bytes, as everywhere in Python
(and as our own JSON does): file names are made of them.
"""

from __future__ import annotations

from sysvisor_runc import jsonlight
from sysvisor_runc.errors import SpecError


def refuse_halves(value: object, path: str) -> None:
    """Raise SpecError with the JSON path of the first string that cannot be encoded; `path` is that of `value`."""
    pending = [(path, value)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, str):
            _check(path, value)
        elif isinstance(value, list):
            pending += [(f"{path}[{index}]", item) for index, item in enumerate(value)]
        elif isinstance(value, dict):
            for key in value:
                _check(path, key)
            pending += [(_below(path, key), item) for key, item in value.items()]


def _below(path: str, key: str) -> str:
    if not key.replace("_", "").isalnum():
        return f"{path}[{jsonlight.dumps(key)}]"
    return f"{path}.{key}" if path else key


def _check(path: str, text: str) -> None:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise SpecError(path, f"contains half of a character: \\u{ord(text[error.start]):04x}") from None

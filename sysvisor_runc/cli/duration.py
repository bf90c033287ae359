"""Go's notation for a length of time, which runc's flags use: `300ms`, `5s`, `1m30s`, `1.5h`."""

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float | None:
    """The duration in seconds, or None if `text` is not one. A plain `0` needs no unit."""
    sign = -1 if text[:1] == "-" else 1
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0.0
    total = 0.0
    while rest:
        length = _span(rest, "0123456789.")
        number, rest = rest[:length], rest[length:]
        length = next((i for i, character in enumerate(rest) if character in "0123456789."), len(rest))
        unit, rest = rest[:length], rest[length:]
        if unit not in _UNITS or number.count(".") > 1 or not number.strip("."):
            return None
        total += float(number) * _UNITS[unit]
    return sign * total if text.strip("+-") else None


def _span(text: str, alphabet: str) -> int:
    return len(text) - len(text.lstrip(alphabet))

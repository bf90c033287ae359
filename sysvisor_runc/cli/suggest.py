"""What somebody who mistyped a name probably meant. Loaded only to word an error."""

import difflib


def nearest(word: str, known: list[str]) -> str | None:
    """The name in `known` most like `word`, or None if none is close."""
    matches = difflib.get_close_matches(word, known, 1, 0.7)
    return matches[0] if matches else None

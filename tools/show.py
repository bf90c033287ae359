"""How the tools talk to a person: headings, checked findings, and a line that says what one is waiting for."""

import sys
import time

_COLOURS = {"bold": "1", "green": "32", "red": "31", "dim": "2"}


def paint(text: str, colour: str) -> str:
    """The text in a colour on a terminal, as it is elsewhere."""
    return f"\033[{_COLOURS[colour]}m{text}\033[0m" if sys.stdout.isatty() else text


def heading(text: str) -> None:
    print(f"\n{paint(text, 'bold')}", flush=True)


class Findings:
    """Findings with a verdict each; `failed` counts those that do not hold."""

    def __init__(self) -> None:
        self.failed = 0

    def check(self, what: str, holds: bool, seen: str) -> None:
        """One finding: `what` was looked at, whether it `holds`, and what was `seen`."""
        self.failed += not holds
        mark = paint("✓", "green") if holds else paint("✗", "red")
        first, *rest = seen.splitlines() or [""]
        print(f"  {mark} {what:<38} {first}", flush=True)
        for line in rest:
            print(f"    {'':<38} {line}", flush=True)


def side_by_side(heads: tuple[str, str], rows: list[tuple[str, str, str]]) -> None:
    """Answers to the same questions from two sides: (question, one, other), line beside line."""
    width = max(len(line) for _, one, _ in rows for line in (heads[0], *one.splitlines()))
    print(f"    {paint(heads[0].ljust(width), 'bold')} | {paint(heads[1], 'bold')}", flush=True)
    for question, one, other in rows:
        print(f"  {paint('$ ' + question, 'dim')}", flush=True)
        left, right = one.splitlines(), other.splitlines()
        for number in range(max(len(left), len(right))):
            pair = [lines[number] if number < len(lines) else "" for lines in (left, right)]
            print(f"    {pair[0].ljust(width)} | {pair[1]}".rstrip(), flush=True)


class Waiting:
    """A context that says what is being waited for, and how long it took."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.began = 0.0

    def __enter__(self) -> "Waiting":
        self.began = time.monotonic()
        print(f"==> {self.what}", flush=True)
        return self

    def __exit__(self, *failure: object) -> None:
        if failure[0] is None:
            print(paint(f"    {time.monotonic() - self.began:.1f} s", "dim"), flush=True)

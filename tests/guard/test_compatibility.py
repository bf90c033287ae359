"""docs/compatibility.md is what the tables and the proofs say, and the proofs are tests that exist."""

import ast
import functools
import pathlib
import re

import pytest

from sysvisor_runc.cli.table import COMMANDS, shown
from sysvisor_runc.spec.schema import SPEC
from tools import compatibility

TESTS = pathlib.Path(__file__).resolve().parents[1]
PEERS, PROOFS = compatibility.load()
ROWS = {
    "commands": (PROOFS["commands"], set(shown())),
    "fields": (PROOFS["fields"], {field for field, _ in compatibility.fields(SPEC)}),
    **{f"flags.{verb}": (PROOFS["flags"].get(verb, {}), set(names)) for verb, names in compatibility.flags().items()},
}
LETTERS = {flag[0]: flag[1] for command in COMMANDS.values() for flag in command[5]}
# Entries whose test has no need to spell them: what it takes for granted, or what only units of systemd give.
SILENT = {"root.path", "resident", "launcher", "systemd-cgroup", "ociVersion"}


@functools.cache
def source(file: str) -> tuple[str, frozenset[str]]:
    """The text of a test file and the names of its tests."""
    text = (TESTS / f"{file}.py").read_text()
    names = [node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    return text, frozenset(names)


@pytest.mark.parametrize("what", ROWS)
def test_every_row_has_its_proof(what: str) -> None:
    """Whatever can be asked for is proved by a test or says why it is not; nothing else is."""
    entries, rows = ROWS[what]
    assert set(entries) == rows


@pytest.mark.parametrize("what", ROWS)
def test_every_proof_speaks_of_its_row(what: str) -> None:
    """The tests named exist, and their file has the name of the flag, or field, in it."""
    entries, _ = ROWS[what]
    for row, entry in entries.items():
        for test in compatibility.tests_of(entry):
            file, _, name = test.partition("::")
            text, names = source(file)
            assert name in names, f"{row}: no {test}"
            assert row in SILENT or _speaks(text, row), f"{row}: {file} does not speak of it"
        if isinstance(entry, dict) and "unproven" in entry:
            assert entry["unproven"], row


def _speaks(text: str, row: str) -> bool:
    """Whether a test file names a command, a field, or a flag, were it by its letter."""
    short = LETTERS.get(row)
    return bool(re.search(rf"\b{row.rpartition('.')[2]}\b", text)) or bool(short and f'"-{short}"' in text)


def test_others_are_compared_in_our_terms() -> None:
    """What other runtimes are said to lack are fields that we know."""
    known = ROWS["fields"][1]
    for peer in PEERS:
        for name in (*peer.ignored, *peer.lacks):
            assert any(field == name or field.startswith(f"{name}.") for field in known), f"{peer.name}: {name}"


def test_the_page_is_current() -> None:
    """`make docs` has been run since the tables or the proofs changed."""
    assert compatibility.PAGE.read_text() == compatibility.page()

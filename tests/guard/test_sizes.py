"""Budgets for reading: how long a module, a function, a line of explanation may be."""

import ast
import statistics

from tests.support import source

MODULE_LIMIT = 500
FUNCTION_LIMIT = 50
# The one linear function: what happens between clone3 and execve, in order, is read from top to bottom.
EXEMPT = {"sysvisor_runc.child.main._stages": 75}
FUNCTION_P90 = 20
FUNCTION_MEDIAN = 10
ENTRY_SCRIPT_LIMIT = 12
DOCSTRING_LIMIT = 14


def test_modules_are_short() -> None:
    """No module has more than 500 code lines."""
    long = [f"{module}: {len(module.lines)}" for module in source.modules() if len(module.lines) > MODULE_LIMIT]
    assert long == []


def test_functions_are_short() -> None:
    """No function has more than 50 code lines."""
    long = [
        f"{module}:{function.lineno}: {function.name}: {length}"
        for module in source.modules()
        for function in module.functions()
        if (length := module.length(function)) > EXEMPT.get(f"{module.name}.{function.name}", FUNCTION_LIMIT)
    ]
    assert long == []


def test_most_functions_are_very_short() -> None:
    """Half of all functions have at most ten code lines, nine of ten at most twenty."""
    lengths = [module.length(function) for module in source.modules() for function in module.functions()]
    assert statistics.median(lengths) <= FUNCTION_MEDIAN
    assert statistics.quantiles(lengths, n=10)[-1] <= FUNCTION_P90


def test_modules_say_what_they_own() -> None:
    """Every module that holds anything begins with a docstring, and it stays a summary."""
    found = []
    for module in source.modules():
        text = ast.get_docstring(module.tree)
        if module.text and (not text or len(text.splitlines()) > DOCSTRING_LIMIT):
            found.append(f"{module}: {len(text.splitlines()) if text else 'no docstring'}")
    assert found == []


def test_entry_script_is_tiny() -> None:
    """A script is compiled at every start, so it only hands over to a module, and runs without site-packages."""
    text = (source.ROOT / "bin/sysvisor-runc").read_text()
    assert text.startswith("#!/usr/bin/python3 -SI\n")
    assert len(source.code_lines(text, ast.parse(text))) <= ENTRY_SCRIPT_LIMIT


def test_no_catch_all_modules() -> None:
    """A module is named after what it owns, not after being useful."""
    names = {module.path.stem for module in source.modules()}
    assert names & {"utils", "util", "helpers", "helper", "common", "misc", "tools"} == set()

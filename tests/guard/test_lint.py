"""Lint and types are tests: what `make lint` says must be nothing."""

import pathlib
import subprocess
import sys

import pytest

from tests.support.source import ROOT

BIN = pathlib.Path(sys.executable).parent


def run(*command: str) -> str:
    """The output of a tool of the virtual environment; empty means content."""
    if not (BIN / command[0]).exists():
        pytest.skip(f"no {command[0]} beside {sys.executable}; to force it: make test")
    done = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True)
    return done.stdout + done.stderr if done.returncode else ""


@pytest.mark.parametrize(
    "command",
    [("ruff", "check", "--quiet", "."), ("ruff", "format", "--quiet", "--check", "."), ("mypy", "--no-error-summary")],
    ids=["check", "format", "types"],
)
@pytest.mark.timeout(300)
def test_tools_are_content(command: tuple[str, ...]) -> None:
    """ruff finds nothing to say, nothing to lay out anew, and mypy --strict believes the types."""
    assert run(*command) == ""

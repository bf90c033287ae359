"""Help pages: what runc's users and its own test suite look for."""

import pytest

from sysvisor_runc.cli import help as module
from sysvisor_runc.cli.main import run
from sysvisor_runc.cli.table import COMMANDS, GLOBALS, shown


def test_overview_starts_as_runc_s() -> None:
    """The first two lines are the ones that runc's suite wants, and every command and global flag is listed."""
    lines = module.overview().splitlines()
    assert lines[:2] == ["NAME:", "   sysvisor-runc - Open Container Initiative runtime"]
    for heading in ("USAGE:", "VERSION:", "COMMANDS:", "GLOBAL OPTIONS:"):
        assert heading in lines
    for verb in shown():
        assert any(line.startswith(f"   {verb}") for line in lines)
    for flag in GLOBALS:
        assert any(line.startswith(f"   --{flag[0]}") for line in lines)


@pytest.mark.parametrize("verb", [verb for verb in shown() if verb != "help"])
def test_pages_of_commands(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`CMD --help` prints name, usage and every visible flag, to standard output, with success."""
    assert run([verb, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "NAME:"
    assert f" {verb} - {COMMANDS[verb][0]}" in lines[1]
    shown_flags = {line.split()[0].rstrip(",") for line in lines if line.startswith("   --")}
    assert shown_flags == {f"--{flag[0]}" for flag in COMMANDS[verb][5] if flag[5]}


def test_help_on_nothing_known(capfd: pytest.CaptureFixture[str]) -> None:
    """Commands that do not exist, or that nobody is told of, have no page."""
    for verb in ("foo", "init"):
        assert run(["help", verb]) == 3
        assert f"No help topic for '{verb}'" in capfd.readouterr().err


def test_flags_show_placeholder_default_and_repetition() -> None:
    """One line says all about a flag."""
    page = module.of_command("run", "sysvisor-runc")
    assert "--bundle DIR, -b DIR  " in page
    assert "(default: idmap)" in page
    assert "(may be repeated)" in page

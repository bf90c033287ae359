"""`--help`, made from the table of commands in the shape that runc's users and tests know."""

from __future__ import annotations

import os
import sys

from sysvisor_runc.cli import manual
from sysvisor_runc.cli.table import BOOL, COMMANDS, GLOBALS, REPEATABLE, shown
from sysvisor_runc.errors import UsageError
from sysvisor_runc.version import NAME, VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.parse import Options
    from sysvisor_runc.cli.table import Flag


def run(options: Options) -> int:
    """Print the help of one command, or the overview."""
    if not options.args:
        sys.stdout.write(overview() + "\n")
        return 0
    verb = options.args[0]
    if verb not in COMMANDS or not COMMANDS[verb][0]:
        raise UsageError(f"No help topic for '{verb}'", hint=f"see '{NAME} --help'", exit_code=3)
    sys.stdout.write(of_command(verb, os.path.basename(sys.argv[0]) or NAME) + "\n")
    return 0


def overview() -> str:
    """The page that `sysvisor-runc --help` shows."""
    commands = [(verb if verb != "help" else "help, h", COMMANDS[verb][0]) for verb in shown()]
    return "\n".join(
        (
            f"NAME:\n   {NAME} - {manual.TITLE}\n",
            manual.OVERVIEW + "\n",
            f"USAGE:\n   {NAME} [global options] command [command options] [arguments...]\n",
            f"VERSION:\n   {VERSION}\n",
            "COMMANDS:",
            *columns(commands),
            "",
            "GLOBAL OPTIONS:",
            *columns([(synopsis(flag), _explained(flag)) for flag in GLOBALS]),
        )
    )


def of_command(verb: str, program: str) -> str:
    """The page that `sysvisor-runc VERB --help` shows."""
    summary, usage, _, _, _, flags = COMMANDS[verb]
    flags = tuple(flag for flag in flags if flag[5])
    options = " [command options]" if flags else ""
    parts = [
        f"NAME:\n   {program} {verb} - {summary}\n",
        f"USAGE:\n   {program} {verb}{options} {usage}".rstrip() + "\n",
    ]
    description, example, _ = manual.PAGES.get(verb, ("", "", ""))
    if description:
        parts.append(f"DESCRIPTION:\n{_indented(description)}\n")
    if example:
        parts.append(f"EXAMPLE:\n{_indented(example)}\n")
    if flags:
        parts.append("OPTIONS:")
        parts.extend(columns([(synopsis(flag), _explained(flag)) for flag in flags]))
    return "\n".join(parts).rstrip()


def synopsis(flag: Flag) -> str:
    """How the flag is given: `--bundle DIR, -b DIR`."""
    name, short, kind, placeholder, _, _ = flag
    value = "" if kind == BOOL else f" {placeholder}"
    return f"--{name}{value}" + (f", -{short}{value}" if short else "")


def columns(rows: list[tuple[str, str]]) -> list[str]:
    """Rows of two columns, aligned."""
    width = max(len(left) for left, _ in rows)
    return [f"   {left:<{width}}  {right}".rstrip() for left, right in rows]


def _explained(flag: Flag) -> str:
    _, _, kind, _, default, text = flag
    notes = [f"default: {default}"] if default else []
    if kind in REPEATABLE:
        notes.append("may be repeated")
    return f"{text} ({'; '.join(notes)})" if notes else text


def _indented(text: str) -> str:
    return "\n".join(f"   {line}".rstrip() for line in text.splitlines())

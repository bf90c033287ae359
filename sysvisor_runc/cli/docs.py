"""`python3 -m sysvisor_runc.cli.docs [DIRECTORY]` writes man pages and shell completions from the table of commands.

Without a directory it renews the committed copies, `docs/man` and `contrib/completions`. Not loaded by any command.
"""

from __future__ import annotations

import os
import sys

from sysvisor_runc.cli import complete, manual
from sysvisor_runc.cli.table import BOOL, COMMANDS, GLOBALS, REPEATABLE, shown
from sysvisor_runc.version import NAME, VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.table import Flag

GENERATED = "generated from sysvisor_runc/cli/table.py by `make docs`; edit that instead"


def main(arguments: list[str]) -> int:
    """Write every page and every completion below the given directory, or into the source tree."""
    if arguments:
        man, completions = (os.path.join(arguments[0], name) for name in ("man", "completions"))
    else:
        tree = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        man, completions = os.path.join(tree, "docs", "man"), os.path.join(tree, "contrib", "completions")
    for directory, files in ((man, man_pages()), (completions, complete.scripts(GENERATED))):
        os.makedirs(directory, exist_ok=True)
        for name, text in files.items():
            with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
                file.write(text)
    return 0


def man_pages() -> dict[str, str]:
    """File name → page, for the program and for each command."""
    pages = {f"{NAME}.8": _main_page()}
    pages.update({f"{NAME}-{verb}.8": _verb_page(verb) for verb in shown() if verb != "help"})
    return pages


def _main_page() -> str:
    verbs = [verb for verb in shown() if verb != "help"]
    blocks = [
        *_head(NAME),
        ".SH NAME",
        f"{_text(NAME)} \\- {manual.TITLE}",
        ".SH SYNOPSIS",
        f"\\fB{_text(NAME)}\\fR [\\fIglobal-option\\fR...] \\fIcommand\\fR [\\fIoption\\fR...] [\\fIargument\\fR...]",
        ".SH DESCRIPTION",
        *_prose(manual.OVERVIEW),
        ".SH COMMANDS",
    ]
    for verb in verbs:
        blocks += [".TP", f"\\fB{_text(NAME)}\\-{verb}\\fR(8)", _text(_sentence(COMMANDS[verb][0]))]
    blocks += [
        ".SH GLOBAL OPTIONS",
        "They must precede the command, or may follow it where the command itself takes no",
    ]
    blocks += ["such option.", *_options(GLOBALS)]
    for title, entries in (("ENVIRONMENT", manual.ENVIRONMENT), ("FILES", manual.FILES)):
        blocks.append(f".SH {title}")
        for name, text in entries:
            blocks += [".TP", f"\\fB{_text(name)}\\fR", *_prose(text)]
    blocks += [".SH EXIT STATUS", *_prose(manual.EXIT_STATUS)]
    blocks += [".SH SEE ALSO", ",\n".join([*(f".BR {NAME}-{verb} (8)" for verb in verbs), ".BR runc (8)"])]
    return _page(blocks)


def _verb_page(verb: str) -> str:
    _, usage, _, _, _, flags = COMMANDS[verb]
    flags = tuple(flag for flag in flags if flag[5])
    description, example, status = manual.PAGES[verb]
    options = " [\\fIoption\\fR...]" if flags else ""
    blocks = [
        *_head(f"{NAME}-{verb}"),
        ".SH NAME",
        f"{_text(NAME)}\\-{verb} \\- {_text(COMMANDS[verb][0])}",
        ".SH SYNOPSIS",
        f"\\fB{_text(NAME)} {verb}\\fR{options} {_text(usage)}".rstrip(),
        ".SH DESCRIPTION",
        *_prose(description),
    ]
    if flags:
        blocks += [".SH OPTIONS", *_options(flags)]
    blocks += [".SH EXIT STATUS", *_prose(status or manual.PLAIN_STATUS)]
    blocks += [".SH EXAMPLE", *_literal(example.split("\n"))]
    blocks += [".SH SEE ALSO", f".BR {NAME} (8)"]
    return _page(blocks)


def _head(name: str) -> list[str]:
    # No date: it would change the committed page with every run.
    return [f'.\\" {GENERATED}', f'.TH "{name.upper()}" 8 "" "{NAME} {VERSION}" "System administration"']


def _page(blocks: list[str]) -> str:
    return "\n".join(blocks).replace(",\n.BR", " ,\n.BR") + "\n"


def _options(flags: tuple[Flag, ...]) -> list[str]:
    lines = []
    for name, short, kind, placeholder, default, text in flags:
        value = "" if kind == BOOL else f" \\fI{_text(placeholder)}\\fR"
        names = [f"\\-{short}", f"\\-\\-{name.replace('-', chr(92) + '-')}"] if short else [f"\\-\\-{_text(name)}"]
        notes = "" if not default else f" The default is {_text(default)}."
        if kind in REPEATABLE:
            notes += " May be given several times."
        lines += [".TP", ", ".join(f"\\fB{each}\\fR{value}" for each in names), _text(_sentence(text)) + notes]
    return lines


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _prose(text: str) -> list[str]:
    """Paragraphs, with `literal` words in bold and lines that begin with four blanks as they are."""
    lines: list[str] = []
    for paragraph in text.split("\n\n"):
        words = paragraph.split("\n")
        if all(line.startswith("    ") for line in words):
            lines += _literal([line[4:] for line in words])
            continue
        if lines:
            lines.append(".PP")
        pieces = _text(" ".join(words)).split("`")
        lines.append("".join(piece if index % 2 == 0 else f"\\fB{piece}\\fR" for index, piece in enumerate(pieces)))
    return lines


def _literal(lines: list[str]) -> list[str]:
    return [".PP", ".RS 4", ".nf", *(_text(line) for line in lines), ".fi", ".RE"]


def _text(text: str) -> str:
    """`text` safe for roff: no escapes, no requests, and hyphens that can be copied to a shell."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("^", "\\(ha")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

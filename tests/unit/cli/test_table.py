"""The table of commands against the code that reads it and the texts that explain it."""

import ast
import pathlib

import pytest

from sysvisor_runc.cli import manual
from sysvisor_runc.cli.table import BOOL, CHOICE, COMMANDS, DURATION, GLOBALS, NUMBER, NUMBERS, TEXT, TEXTS, Flag, shown
from tests.support import source

CLI = source.ROOT / "sysvisor_runc/cli"
LATER = ("init",)  # accepted by the parser, never typed by a person
# runc 1.5's flags by command, as its users know them.
RUNC = {
    "": "debug log log-format root systemd-cgroup rootless",
    "checkpoint": "image-path work-path parent-path leave-running tcp-established tcp-skip-in-flight link-remap"
    " ext-unix-sk shell-job lazy-pages status-fd page-server file-locks pre-dump manage-cgroups-mode empty-ns"
    " auto-dedup",
    "create": "bundle b console-socket pidfd-socket pid-file no-pivot no-new-keyring preserve-fds",
    "delete": "force f",
    "events": "interval stats",
    "exec": "console-socket pidfd-socket cwd env e tty t user u additional-gids g process p detach d pid-file"
    " process-label apparmor no-new-privs cap c preserve-fds cgroup ignore-paused",
    "features": "",
    "kill": "all a",
    "list": "format f quiet q",
    "pause": "",
    "ps": "format f",
    "restore": "console-socket image-path work-path tcp-established ext-unix-sk shell-job file-locks"
    " manage-cgroups-mode bundle b detach d pid-file no-subreaper no-pivot empty-ns auto-dedup lazy-pages lsm-profile"
    " lsm-mount-context",
    "resume": "",
    "run": "bundle b console-socket pidfd-socket detach d keep pid-file no-subreaper no-pivot no-new-keyring"
    " preserve-fds",
    "spec": "bundle b rootless",
    "start": "",
    "state": "",
    "update": "resources r blkio-weight cpu-period cpu-quota cpu-burst cpu-share cpu-rt-period cpu-rt-runtime"
    " cpuset-cpus cpuset-mems kernel-memory kernel-memory-tcp memory cpu-idle memory-reservation memory-swap pids-limit"
    " l3-cache-schema mem-bw-schema",
}  # fmt: skip


def flags_of(verb: str) -> tuple[Flag, ...]:
    return COMMANDS[verb][5] if verb else GLOBALS


@pytest.mark.parametrize("verb", RUNC)
def test_every_flag_of_runc_is_there(verb: str) -> None:
    """Whatever drives runc 1.5 finds each of its flags, with the same one-letter names."""
    ours = {name for flag in flags_of(verb) for name in flag[:2] if name}
    assert set(RUNC[verb].split()) <= ours


@pytest.mark.parametrize("verb", ["", *COMMANDS])
def test_rows_are_sound(verb: str) -> None:
    """Names are unique, kinds known, values have a placeholder, and help is no sentence."""
    flags = flags_of(verb)
    names = [name for flag in flags for name in flag[:2] if name]
    assert len(names) == len(set(names))
    for name, short, kind, placeholder, default, text in flags:
        assert kind in {BOOL, TEXT, CHOICE, NUMBER, DURATION, TEXTS, NUMBERS}, name
        assert len(short) <= 1
        assert bool(placeholder) == (kind != BOOL), name
        assert kind != CHOICE or default in ("", *placeholder.split("|")), name
        assert not text.endswith("."), name


def test_every_command_is_explained() -> None:
    """Help and man pages have a text and an example for each command that people are told of, and for no other."""
    assert set(manual.PAGES) == set(shown())
    assert all(description and example for description, example, _ in manual.PAGES.values())


def test_commands_are_sorted() -> None:
    """Help lists commands in the order of the table."""
    assert list(COMMANDS) == sorted(COMMANDS)


@pytest.mark.parametrize("verb", [verb for verb in COMMANDS if verb not in LATER])
def test_every_command_has_its_module(verb: str) -> None:
    """The dispatcher loads cli/VERB.py and calls run(options)."""
    tree = ast.parse((CLI / f"{verb}.py").read_text())
    assert any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in tree.body)


def asked(path: pathlib.Path) -> set[tuple[int, str]]:
    """(line, flag name) of each literal flag name that a module asks its options for."""
    return {
        (node.lineno, node.args[0].value)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"text", "texts", "flag", "number", "numbers", "given"}
        and ast.unparse(node.func.value).split(".")[-1] in {"options", "_options"}
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


@pytest.mark.parametrize("verb", [verb for verb in COMMANDS if verb not in LATER])
def test_modules_ask_only_for_their_flags(verb: str) -> None:
    """A misspelt name in options.text("…") would be a crash at run time; it is one here."""
    path = CLI / f"{verb}.py"
    if not path.exists():  # another test says so
        return
    known = {flag[0] for flag in flags_of(verb)}
    assert [f"{path.name}:{line}: {name}" for line, name in sorted(asked(path)) if name not in known] == []

"""The command line: runc's rules, and errors that name the flag."""

import os
import pathlib

import pytest

from sysvisor_runc.cli import parse as module
from sysvisor_runc.cli.duration import seconds
from sysvisor_runc.cli.parse import Options, default_root, is_integer
from sysvisor_runc.errors import UsageError


def parse(*argv: str) -> Options:
    return module.parse(list(argv), {})


def failure(*argv: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse(*argv)
    return caught.value


@pytest.mark.parametrize(
    "words",
    [
        ("--bundle", "/b"),
        ("--bundle=/b",),
        ("-bundle", "/b"),
        ("-bundle=/b",),
        ("-b", "/b"),
        ("-b=/b",),
        ("--b", "/b"),
    ],
)
def test_every_spelling_of_a_flag_is_understood(words: tuple[str, ...]) -> None:
    """One dash or two, joined or apart, long or short: Go's flag package makes no difference."""
    options = parse("run", *words, "id")
    assert (options.verb, options.args, options.text("bundle")) == ("run", ["id"], "/b")


def test_flags_may_follow_arguments() -> None:
    """`delete id --force` works, as with runc."""
    options = parse("delete", "id", "--force")
    assert options.args == ["id"]
    assert options.flag("force")


def test_flags_of_the_inner_command_are_left_alone() -> None:
    """What follows the container id of exec belongs to the command, whatever it looks like."""
    options = parse("exec", "-t", "id", "ls", "--color", "-t", "--", "-x")
    assert options.args == ["id", "ls", "--color", "-t", "--", "-x"]
    assert options.flag("tty")


@pytest.mark.parametrize(
    ("argv", "args"),
    [
        (("exec", "id", "-t"), ["id", "-t"]),
        (("ps", "id", "-e", "-x"), ["id", "-e", "-x"]),
        (("kill", "id", "-9"), ["id", "-9"]),
        (("state", "--", "-h"), ["-h"]),
        (("exec", "--", "id", "--", "x"), ["id", "--", "x"]),
        (("exec", "id", "--", "x"), ["id", "x"]),
        (("state", ""), [""]),
        (("state", "-"), ["-"]),
    ],
)
def test_where_flags_end(argv: tuple[str, ...], args: list[str]) -> None:
    """Flags end at `--`, and for some commands at the container id; a lone dash and numbers are no flags."""
    assert parse(*argv).args == args


@pytest.mark.parametrize(
    ("words", "on"),
    [
        (("--tty",), True),
        (("--tty=true",), True),
        (("--tty=1",), True),
        (("--tty=",), True),
        (("--tty=false",), False),
        (("-t=F",), False),
        (("--tty", "--tty=false"), False),
        ((), False),
    ],
)
def test_switches_can_be_turned_off(words: tuple[str, ...], on: bool) -> None:
    """A switch takes Go's spellings of true and false, joined by `=`; the last one counts."""
    assert parse("exec", *words, "id", "x").flag("tty") is on


def test_given_tells_a_value_from_a_default() -> None:
    """`--no-new-privs=false` is a wish of its own, other than saying nothing."""
    assert parse("exec", "--no-new-privs=false", "id", "x").given("no-new-privs")
    assert not parse("exec", "id", "x").given("no-new-privs")


def test_repeatable_flags_keep_every_value_whole() -> None:
    """Lists are made by repeating the flag; a comma is part of the value (`cpu,cpuacct:sub`)."""
    options = parse("exec", "-e", "A=1,2", "--env=B=", "--cgroup", "cpu,cpuacct:sub", "-g", "5", "-g=-6", "id", "x")
    assert options.texts("env") == ["A=1,2", "B="]
    assert options.texts("cgroup") == ["cpu,cpuacct:sub"]
    assert options.numbers("additional-gids") == [5, -6]
    assert options.texts("cap") == []


def test_the_last_of_several_values_counts() -> None:
    """A flag that is not repeatable may still stand twice."""
    assert parse("run", "-b", "/a", "--bundle", "/b", "id").text("bundle") == "/b"


def test_values_may_look_like_flags() -> None:
    """The word after a flag is its value, even `-1`."""
    options = parse("update", "--memory-swap", "-1", "--pids-limit", "-1", "id")
    assert options.text("memory-swap") == "-1"
    assert options.number("pids-limit") == -1


def test_defaults_come_from_the_table() -> None:
    """What is not given has the table's default, or None; an empty value counts as not given."""
    options = parse("run", "--pid-file=", "id")
    assert options.number("preserve-fds") == 0
    assert options.text("uid-shift") == "idmap"
    assert options.text("pid-file") is None
    assert parse("update", "id").number("pids-limit") is None


def test_an_unknown_name_is_a_mistake_of_the_program() -> None:
    """Asking for a flag that the command does not have cannot go unnoticed."""
    with pytest.raises(KeyError):
        parse("state", "id").flag("force")


@pytest.mark.parametrize("argv", [("-h",), ("--help",), ("help",), ("h",), (), ("--debug", "-h"), ("help", "-h")])
def test_the_overview_is_a_command(argv: tuple[str, ...]) -> None:
    """Help without a command, and no command at all, show the overview."""
    options = parse(*argv)
    assert (options.verb, options.args) == ("help", [])


@pytest.mark.parametrize("argv", [("run", "-h"), ("run", "--help"), ("help", "run"), ("run", "id", "more", "-h")])
def test_help_on_a_command(argv: tuple[str, ...]) -> None:
    """`CMD -h` is `help CMD`, whatever arguments are missing."""
    options = parse(*argv)
    assert (options.verb, options.args) == ("help", ["run"])


@pytest.mark.parametrize("argv", [("-v",), ("--version",), ("--version", "run")])
def test_version_is_a_command(argv: tuple[str, ...]) -> None:
    """`-v` wins over whatever else is there."""
    assert parse(*argv).verb == "version"


def test_unknown_commands_have_runc_s_words_and_code() -> None:
    """Also with -h: the text and exit code 3 are runc's, the hint is ours."""
    error = failure("foo", "-h")
    assert (error.message, error.exit_code) == ("No help topic for 'foo'", 3)
    assert failure("stat", "x").hint == "did you mean 'state'?"


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (("run", "-it", "x"), "process.terminal in config.json"),
        (("exec", "-i", "x", "sh"), "standard input is always passed on"),
        (("run", "--rm", "x"), "removes the container by itself"),
        (("state", "--rm", "x"), "sysvisor-runc state --help"),
    ],
)
def test_flags_of_engines_have_a_hint(argv: tuple[str, ...], hint: str) -> None:
    """Whoever comes from an engine is told what does the same here."""
    assert hint in (failure(*argv).hint or "")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("state", "--bogus", "x"), "flag provided but not defined: --bogus"),
        (("--bogus=1", "state", "x"), "flag provided but not defined: --bogus"),
        (("exec", "-it", "x", "y"), "flag provided but not defined: -it"),
        (("state", "---x"), "flag provided but not defined: ---x"),
        (("state", "--=x"), "flag provided but not defined: --"),
        (("create", "-b"), "flag needs an argument: -b"),
        (("--root",), "flag needs an argument: --root"),
        (("create", "--preserve-fds", "x", "a"), "invalid value 'x' for flag --preserve-fds: expected a whole number"),
        (("create", "--preserve-fds=", "a"), "invalid value '' for flag --preserve-fds: expected a whole number"),
        (("list", "-q=maybe"), "invalid value 'maybe' for flag -q: expected true or false"),
        (("list", "-f", "xml"), "invalid value 'xml' for flag -f: expected table or json"),
        (("events", "--interval", "5", "x"),
         "invalid value '5' for flag --interval: expected a time such as 5s or 1m30s"),
        (("state",), '"state" requires exactly 1 argument(s)'),
        (("list", "x"), '"list" requires exactly 0 argument(s)'),
        (("exec",), '"exec" requires a minimum of 1 argument(s)'),
        (("kill", "a", "b", "c"), '"kill" requires a maximum of 2 argument(s)'),
    ],
)  # fmt: skip
def test_errors_name_the_flag(argv: tuple[str, ...], message: str) -> None:
    """Every mistake says which word is wrong, and points at help or at the right name."""
    error = failure(*argv)
    assert error.message == message
    assert error.hint is not None
    assert error.exit_code == 1


def test_mistyped_flags_get_a_suggestion() -> None:
    """The flag that was probably meant is named, hidden ones excepted."""
    assert failure("run", "--bundl", "x").hint == "did you mean --bundle?"
    assert failure("--systemd-cgruop", "list").hint == "did you mean --systemd-cgroup?"
    assert failure("update", "--kernel-memry", "1", "x").hint != "did you mean --kernel-memory?"


def test_global_flags_are_understood_on_both_sides() -> None:
    """Before the command or after it, as with runc 1.5; a command's own flag of that name wins."""
    assert parse("--debug", "list").globals.debug
    assert parse("list", "--debug").globals.debug
    assert not parse("exec", "id", "--debug").globals.debug
    spec = parse("spec", "--rootless")
    assert spec.flag("rootless")
    assert spec.globals.rootless is None


def test_global_flags_survive_a_bad_command(tmp_path: pathlib.Path) -> None:
    """The log file learns of a bad command line, so its name is known even then."""
    shared: dict[str, list[str]] = {}
    with pytest.raises(UsageError):
        module.parse(["--log", str(tmp_path), "run", "--bogus"], shared)
    assert shared == {"log": [str(tmp_path)]}


@pytest.mark.parametrize(
    ("word", "wanted"),
    [("true", True), ("1", True), ("false", False), ("f", False), ("auto", None), ("", None)],
)
def test_rootless_is_true_false_or_automatic(word: str, wanted: bool | None) -> None:
    """--rootless takes Go's booleans and `auto`."""
    assert parse(f"--rootless={word}", "list").globals.rootless is wanted


def test_unset_globals() -> None:
    """Without any flag nothing is asked for."""
    shared = parse("list").globals
    assert (shared.debug, shared.log, shared.log_format, shared.criu) == (False, None, "text", "criu")
    assert (shared.systemd_cgroup, shared.no_syscont, shared.no_sysvisor_fs) == (False, False, False)
    assert not shared.root_given


def test_root_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """--root is taken relative to where the command was started, since commands change their directory."""
    monkeypatch.chdir(tmp_path)
    shared = parse("--root", "a/../state", "list").globals
    assert shared.root == f"{os.getcwd()}/state"
    assert shared.root_given


@pytest.mark.parametrize("root", ["/", "//", "/usr/..", ""])
def test_the_file_system_is_no_state_root(root: str) -> None:
    """With a root of / every top directory would be a container, for delete too."""
    assert "--root" in failure("--root", root, "list").message


@pytest.mark.parametrize(("mode", "plain"), [("TRUE", False), ("FALSE", True)])
def test_environment_can_ask_for_plain_containers(monkeypatch: pytest.MonkeyPatch, mode: str, plain: bool) -> None:
    """SYSVISOR_SYSCONT_MODE=FALSE is --no-syscont; what it does not know is refused."""
    monkeypatch.setenv("SYSVISOR_SYSCONT_MODE", mode)
    assert parse("list").globals.no_syscont is plain
    assert parse("--no-syscont", "list").globals.no_syscont
    monkeypatch.setenv("SYSVISOR_SYSCONT_MODE", mode.lower())
    assert "SYSVISOR_SYSCONT_MODE" in failure("list").message


def test_only_system_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    """SYSVISOR_SYSCONT_MODE=ONLY is --only-syscont; neither goes with --no-syscont."""
    assert parse("--only-syscont", "list").globals.only_syscont
    assert "exclude each other" in failure("--only-syscont", "--no-syscont", "list").message
    monkeypatch.setenv("SYSVISOR_SYSCONT_MODE", "ONLY")
    assert parse("list").globals.only_syscont
    assert "exclude each other" in failure("--no-syscont", "list").message


def test_root_ignores_the_session_of_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's root has one state root, whatever XDG_RUNTIME_DIR says; an ordinary user has one in there."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    assert default_root() == "/run/user/1/sysvisor-runc"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    assert default_root() == "/run/sysvisor-runc"


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("0", True),
        ("-1", True),
        ("+7", True),
        ("9223372036854775807", True),
        ("9223372036854775808", False),
        ("-9223372036854775808", True),
        ("1" * 5000, False),
        ("", False),
        ("-", False),
        ("1.5", False),
        ("1_0", False),
        ("٣", False),
        ("0x10", False),
    ],
)
def test_integers_are_decimal_and_fit(text: str, fits: bool) -> None:
    """Numbers are 64 bits wide, in ASCII digits, and never slow to refuse."""
    assert is_integer(text) is fits


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("5s", 5.0),
        ("1m30s", 90.0),
        ("250ms", 0.25),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("-2s", -2.0),
        ("0", 0.0),
        ("3us", 3e-6),
        ("", None),
        ("5", None),
        ("s", None),
        (".s", None),
        ("1..5s", None),
        ("5 s", None),
        ("-", None),
        ("5q", None),
        ("+-5s", None),
    ],
)
def test_durations_are_go_s(text: str, wanted: float | None) -> None:
    """Times are written as Go writes them, with a unit each."""
    assert seconds(text) == wanted

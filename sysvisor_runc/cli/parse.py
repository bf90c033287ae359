"""Command line in, `Options` out, with runc's rules: flags with one dash or two, `--flag=value`, Go's notation.

Flags may stand between arguments, except where what follows belongs to somebody else (`exec`, `ps`, `kill`). Global
flags are understood after the command, too. No argparse: it costs more than all of `state`.
"""

from __future__ import annotations

import os

from sysvisor_runc.cli.table import BOOL, CHOICE, COMMANDS, DURATION, GLOBALS, NUMBER, NUMBERS
from sysvisor_runc.errors import UsageError
from sysvisor_runc.version import NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.table import Flag

    Store = dict[str, list[str]]  # flag name → the values given, in order
    Level = tuple[dict[str, Flag], Store]

# What Go's strconv.ParseBool understands. An empty value (`--tty=`) counts as true, as in runc.
_TRUE = ("true", "1", "t", "T", "TRUE", "True", "")
_FALSE = ("false", "0", "f", "F", "FALSE", "False")

STATE_ROOT = "/run/sysvisor-runc"
SYSCONT_MODE = "SYSVISOR_SYSCONT_MODE"


class GlobalOptions:
    """What holds for any command.

    Attributes: `root` is absolute; `root_given` tells whether the user chose it. `rootless` is None for automatic.
    `log` is None without a log file. Raises UsageError for values that cannot be.
    """

    __slots__ = (
        "criu", "debug", "log", "log_format", "no_syscont", "no_sysvisor_fs", "only_syscont", "root", "root_given",
        "rootless", "systemd_cgroup",
    )  # fmt: skip

    def __init__(self, store: Store) -> None:
        self.debug = _is_on(store, "debug")
        self.log = _last(store, "log") or None
        self.log_format = _last(store, "log-format") or "text"
        self.root_given = "root" in store
        self.root = _chosen_root(store["root"][-1]) if self.root_given else default_root()
        self.systemd_cgroup = _is_on(store, "systemd-cgroup")
        rootless = _last(store, "rootless")
        self.rootless = None if rootless in ("", "auto") else rootless in _TRUE
        self.criu = _last(store, "criu") or "criu"
        self.no_sysvisor_fs = _is_on(store, "no-sysvisor-fs")
        mode = _mode_by_environment()
        self.no_syscont = _is_on(store, "no-syscont") or mode == "FALSE"
        self.only_syscont = _is_on(store, "only-syscont") or mode == "ONLY"
        if self.no_syscont and self.only_syscont:
            raise UsageError("--no-syscont and --only-syscont exclude each other", hint=f"{SYSCONT_MODE} may say one")


class Options:
    """One parsed command: `verb`, its positional `args`, the `globals`, and its flags by name.

    A name that the table does not give to the verb is a mistake of the program: KeyError.
    """

    __slots__ = ("_flags", "_given", "args", "globals", "verb")

    def __init__(self, verb: str, args: list[str], given: Store, shared: GlobalOptions) -> None:
        self.verb = verb
        self.args = args
        self.globals = shared
        self._given = given
        self._flags = {flag[0]: flag for flag in COMMANDS[verb][5]}

    def given(self, name: str) -> bool:
        """Whether the flag stood on the command line, whatever its value."""
        return self._flags[name][0] in self._given

    def text(self, name: str) -> str | None:
        """The last value given, else the default; None without either. An empty value counts as not given."""
        default = self._flags[name][4]
        return _last(self._given, name) or default or None

    def texts(self, name: str) -> list[str]:
        """Every value of a repeatable flag, in order."""
        return list(self._given.get(self._flags[name][0], ()))

    def flag(self, name: str) -> bool:
        """Whether a switch is on."""
        return _is_on(self._given, self._flags[name][0])

    def number(self, name: str) -> int | None:
        """The value as an integer; None when neither given nor defaulted. Raises UsageError where it is none."""
        value = self.text(name)
        return None if value is None else _integer(name, value)

    def numbers(self, name: str) -> list[int]:
        """Every value of a repeatable flag as an integer, in order."""
        return [_integer(name, value) for value in self.texts(name)]


def parse(argv: list[str], shared: Store) -> Options:
    """Parse the words after the program's name. Raises UsageError, with the command's help as the hint.

    `shared` receives the global flags even when parsing fails later, so that a bad command line reaches the log file.
    Help and version are commands of their own: `run -h` comes out as `help run`.
    """
    words = _scan(argv, (_level(GLOBALS, shared),), -1, "")
    if _is_on(shared, "version"):
        return Options("version", [], {}, GlobalOptions(shared))
    if not words:
        return Options("help", [], {}, GlobalOptions(shared))
    verb = "help" if words[0] == "h" else words[0]
    if verb not in COMMANDS:
        raise UsageError(f"No help topic for '{verb}'", hint=_hint_for_verb(verb), exit_code=3)
    _, _, least, most, ends, flags = COMMANDS[verb]
    own: Store = {}
    args = _scan(words[1:], (_level(flags, own), _level(GLOBALS, shared)), 1 if ends else -1, verb)
    if _is_on(shared, "help"):
        return Options("help", [] if verb == "help" else [verb], {}, GlobalOptions(shared))
    _check_count(verb, len(args), least, most)
    return Options(verb, args, own, GlobalOptions(shared))


def default_root() -> str:
    """Where state lives unless --root says otherwise. The rule for ordinary users is runc's."""
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR")
    if runtime_dir and _is_rootless():
        return f"{runtime_dir}/{NAME}"
    return STATE_ROOT


def _is_rootless() -> bool:
    """Not the host's root: another user, or root of a user namespace that an ordinary user made."""
    if os.geteuid() != 0:
        return True
    try:
        with open("/proc/self/uid_map", "rb") as uid_map:
            in_user_namespace = uid_map.read().split() != [b"0", b"0", b"4294967295"]
    except OSError:  # a kernel without user namespaces
        return False
    return in_user_namespace and os.environ.get("USER") != "root"


def _chosen_root(value: str) -> str:
    root = os.path.abspath(value) if value else "/"
    # A root of / would make every directory of the host a container, for `delete` too.
    if root.lstrip("/") == "":
        raise UsageError("option --root must not be '/' or empty", hint=f"the default is {STATE_ROOT}")
    return root


def _mode_by_environment() -> str:
    mode = os.environ.get(SYSCONT_MODE, "TRUE")
    if mode not in ("TRUE", "FALSE", "ONLY"):
        raise UsageError(f"environment variable {SYSCONT_MODE} must be TRUE, FALSE or ONLY, not {mode!r}")
    return mode


def _level(flags: tuple[Flag, ...], store: Store) -> Level:
    names = {flag[0]: flag for flag in flags}
    names.update((flag[1], flag) for flag in flags if flag[1])
    return names, store


def _scan(argv: list[str], levels: tuple[Level, ...], limit: int, verb: str) -> list[str]:
    """Store the flags of `argv` and return its arguments; after `limit` of them nothing is a flag any more.

    Without a verb, the first argument is the verb, and all that follows is returned as it is.
    """
    arguments: list[str] = []
    index = 0
    while index < len(argv):
        word = argv[index]
        if word == "--":
            return arguments + argv[index + 1 :]
        if len(arguments) == limit:
            return arguments + argv[index:]
        index += 1
        # "-" is standard input and "-1" a number: arguments, as for Go's flag package.
        if len(word) > 1 and word[0] == "-" and (word[1] == "-" or word[1].isalpha()):
            index += _take(word, argv[index:], levels, verb)
        elif verb:
            arguments.append(word)
        else:
            return argv[index - 1 :]
    return arguments


def _take(word: str, following: list[str], levels: tuple[Level, ...], verb: str) -> int:
    """Store one flag. Returns how many of the `following` words it used up as its value."""
    name, equals, value = word.lstrip("-").partition("=") if word[:3] != "---" else (word, "", "")
    known = next((level for level in levels if name in level[0]), None)
    if known is None:
        raise UsageError(f"flag provided but not defined: {word.partition('=')[0]}", hint=_hint_for_flag(name, verb))
    names, store = known
    flag = names[name]
    used = 0
    if flag[2] != BOOL and not equals:
        if not following:
            raise UsageError(f"flag needs an argument: {word}", hint=see_help(verb))
        value, used = following[0], 1
    _check_value(word.partition("=")[0], flag, value, verb)
    store.setdefault(flag[0], []).append(value)
    return used


def _check_value(shown: str, flag: Flag, value: str, verb: str) -> None:
    _, _, kind, placeholder, _, _ = flag
    if kind == BOOL:
        wanted = "" if value in _TRUE or value in _FALSE else "expected true or false"
    elif kind in (NUMBER, NUMBERS):
        wanted = "" if is_integer(value) else "expected a whole number"
    elif kind == CHOICE:
        # Go's other spellings of true and false stay welcome where those are among the choices (--rootless).
        spelled = {"true": _TRUE, "false": _FALSE}
        choices = placeholder.split("|")
        fits = value == "" or any(value == choice or value in spelled.get(choice, ()) for choice in choices)
        wanted = "" if fits else f"expected {' or '.join(choices)}"
    elif kind == DURATION:
        from sysvisor_runc.cli.duration import seconds

        wanted = "" if seconds(value) is not None else "expected a time such as 5s or 1m30s"
    else:
        return
    if wanted:
        raise UsageError(f"invalid value {value!r} for flag {shown}: {wanted}", hint=see_help(verb))


def is_integer(value: str) -> bool:
    """Whether `value` is a decimal integer of at most 64 bits."""
    digits = value[1:] if value[:1] in ("-", "+") else value
    return digits.isascii() and digits.isdigit() and len(digits) < 20 and -(1 << 63) <= int(value) < 1 << 63


def _integer(name: str, value: str) -> int:
    if not is_integer(value):
        raise UsageError(f"invalid value {value!r} for flag --{name}: expected a whole number")
    return int(value)


def _last(store: Store, name: str) -> str:
    values = store.get(name)
    return values[-1] if values else ""


def _is_on(store: Store, name: str) -> bool:
    return name in store and store[name][-1] in _TRUE


def _check_count(verb: str, count: int, least: int, most: int) -> None:
    if least == most != count:
        wanted = f"exactly {least}"
    elif count < least:
        wanted = f"a minimum of {least}"
    elif count > most >= 0:
        wanted = f"a maximum of {most}"
    else:
        return
    raise UsageError(f'"{verb}" requires {wanted} argument(s)', hint=see_help(verb))


def see_help(verb: str) -> str:
    """The hint for whoever got the command line wrong."""
    return f"see '{NAME} {verb} --help'" if verb else f"see '{NAME} --help'"


def _hint_for_verb(verb: str) -> str:
    from sysvisor_runc.cli.suggest import nearest

    match = nearest(verb, [name for name, command in COMMANDS.items() if command[0]])
    return f"did you mean '{match}'?" if match else see_help("")


def _hint_for_flag(name: str, verb: str) -> str:
    from sysvisor_runc.cli.suggest import nearest, of_engines

    if engines := of_engines(name, verb):
        return engines
    flags = (*COMMANDS[verb][5], *GLOBALS) if verb else GLOBALS
    match = nearest(name, [flag[0] for flag in flags if flag[5]])
    return f"did you mean --{match}?" if match else see_help(verb)

"""Completion scripts for bash, zsh and fish, from the table of commands. Loaded by `docs.py` only."""

from __future__ import annotations

from sysvisor_runc.cli.table import BOOL, CHOICE, COMMANDS, GLOBALS, REPEATABLE, shown
from sysvisor_runc.version import NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.table import Flag

FUNCTION = "_" + NAME.replace("-", "_")
# Commands whose first argument names a container that exists, as opposed to one that is to be made.
EXISTING = tuple(
    verb for verb in shown() if "<container-id>" in COMMANDS[verb][1] and verb not in ("create", "run", "restore")
)
# What completes the value of a flag, where it is not a list of words.
FILES = "<files>"
DIRECTORIES = "<directories>"
NOTHING = ""


def scripts(notice: str) -> dict[str, str]:
    """File name → script; `notice` goes into the first comment."""
    return {f"{NAME}.bash": bash(notice), f"_{NAME}": zsh(notice), f"{NAME}.fish": fish(notice)}


def values_of(flag: Flag) -> str:
    """What completes the flag's value: FILES, DIRECTORIES, NOTHING, or the choices separated by blanks."""
    _, _, kind, placeholder, _, _ = flag
    if kind == CHOICE or placeholder == "0|1":
        return placeholder.replace("|", " ")
    return {"PATH": FILES, "FILE": FILES, "DIR": DIRECTORIES}.get(placeholder, NOTHING)


def _flags(verb: str) -> list[Flag]:
    """The flags that people are told of; the global ones for an empty verb."""
    return [flag for flag in (COMMANDS[verb][5] if verb else GLOBALS) if flag[5]]


def _spellings(flag: Flag) -> list[str]:
    return [f"--{flag[0]}", *([f"-{flag[1]}"] if flag[1] else [])]


_BASH = """\
# bash completion for @NAME@
# @NOTICE@

@FUNCTION@_words() { COMPREPLY=($(compgen -W "$1" -- "$cur")); }
@FUNCTION@_paths() { local IFS=$'\\n'; COMPREPLY=($(compgen "$1" -- "$cur")); }

# Complete the value of flag $2 of command $1, which is empty for a global flag. Fails if that takes none.
@FUNCTION@_value() {
    case $1:$2 in
@VALUES@
        *) return 1 ;;
    esac
    return 0 # compgen fails where nothing matches
}

@FUNCTION@_flags() {
    case $1 in
@FLAGS@
    esac
}

@FUNCTION@() {
    local cur='' verb='' pending='' word arguments=0 i root=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $word == = ]]; then
            continue # bash hands --flag=value over as three words
        elif [[ -n $pending ]]; then
            [[ $pending == --root ]] && root=(--root "$word")
            pending=''
        elif [[ $word == -* ]]; then
            if @FUNCTION@_value "$verb" "$word" || @FUNCTION@_value '' "$word"; then pending=$word; fi
        elif [[ -z $verb ]]; then
            verb=$word
        else
            ((++arguments))
        fi
    done
    cur=${COMP_WORDS[COMP_CWORD]}
    [[ $cur == = ]] && cur=''
    COMPREPLY=()
    if [[ -n $pending ]]; then
        @FUNCTION@_value "$verb" "$pending" || @FUNCTION@_value '' "$pending"
    elif [[ $cur == -* ]]; then
        @FUNCTION@_flags "$verb"
    elif [[ -z $verb || $verb == help ]]; then
        @FUNCTION@_words '@VERBS@'
    elif [[ ' @EXISTING@ ' == *" $verb "* && $arguments == 0 ]]; then
        @FUNCTION@_words "$("${COMP_WORDS[0]}" "${root[@]}" list --quiet 2>/dev/null)"
    elif [[ $verb == kill && $arguments == 1 ]]; then
        local signals
        signals=$(compgen -A signal -X 'SIGJUNK*' SIG)
        [[ $cur == SIG* ]] || signals=${signals//SIG/}
        @FUNCTION@_words "$signals"
    fi
}

complete -o filenames -F @FUNCTION@ @NAME@
"""


def bash(notice: str) -> str:
    """The script for bash; it needs no library of completion functions."""
    actions: dict[str, list[str]] = {}
    flags = []
    for verb in ("", *shown()):
        for flag in _flags(verb):
            if flag[2] != BOOL:
                actions.setdefault(values_of(flag), []).extend(f"{verb}:{name}" for name in _spellings(flag))
        names = " ".join(name for flag in _flags(verb) for name in _spellings(flag))
        flags.append(f"        {verb or chr(39) * 2}) {FUNCTION}_words '{names}' ;;")
    commands = {FILES: f"{FUNCTION}_paths -f", DIRECTORIES: f"{FUNCTION}_paths -d", NOTHING: "COMPREPLY=()"}
    values = []
    for action, patterns in actions.items():
        command = commands.get(action, f"{FUNCTION}_words '{action}'")
        values.append(f"        {' | '.join(patterns)})\n            {command} ;;")
    return _filled(
        _BASH,
        {
            "VALUES": "\n".join(values),
            "FLAGS": "\n".join(flags),
            "VERBS": " ".join(shown()),
            "EXISTING": " ".join(EXISTING),
            "NOTICE": notice,
        },
    )


_ZSH = """\
#compdef @NAME@
# @NOTICE@

@FUNCTION@_containers() {
    local -a ids
    ids=(${(f)"$(_call_program containers $service ${opt_args[--root]:+--root} ${opt_args[--root]} list --quiet)"})
    _describe container ids
}

@FUNCTION@() {
    local curcontext="$curcontext" state line
    local -A opt_args
    local -a commands
    commands=(
@COMMANDS@
    )
    _arguments -C \\
@GLOBALS@
        '1: :->command' '*:: :->arguments' && return
    case $state in
        command) _describe command commands ;;
        arguments)
            case $words[1] in
@ARGUMENTS@
            esac ;;
    esac
}

@FUNCTION@ "$@"
"""


def zsh(notice: str) -> str:
    """The script for zsh."""
    arguments = []
    for verb in shown():
        specs = [_zsh_flag(flag) for flag in _flags(verb)]
        if verb in EXISTING:
            specs.append(f"'1:container:{FUNCTION}_containers'")
        specs += {
            "kill": ["'2:signal:_signals -s'"],
            "exec": ["'*::command: _normal'"],
            "ps": ["'*::ps option: '"],
            "help": ["'1:command:(" + " ".join(shown()) + ")'"],
        }.get(verb, [])
        joined = " \\\n                        ".join(["_arguments", *specs])
        arguments.append(f"                {verb})\n                    {joined} ;;")
    return _filled(
        _ZSH,
        {
            "COMMANDS": "\n".join(f"        '{verb}:{_single(COMMANDS[verb][0])}'" for verb in shown()),
            "GLOBALS": "\n".join(f"        {_zsh_flag(flag)} \\" for flag in _flags("")),
            "ARGUMENTS": "\n".join(arguments),
            "NOTICE": notice,
        },
    )


def _zsh_flag(flag: Flag) -> str:
    """One argument of _arguments: `'(-b --bundle)'{-b+,--bundle=}'[text]:DIR:_files -/'`."""
    name, short, kind, placeholder, _, text = flag
    value, many = "", "*" if kind in REPEATABLE else ""
    if kind != BOOL:
        words = values_of(flag)
        action = {FILES: "_files", DIRECTORIES: "_files -/", NOTHING: " "}.get(words) or f"({words})"
        value = f":{_zsh_text(placeholder)}:{action}"
    equals, plus = ("=", "+") if kind != BOOL else ("", "")
    tail = _single(f"[{_zsh_text(text)}]{value}")
    if not short:
        return f"'{many}--{name}{equals}{tail}'"
    excluded = "*" if many else f"(-{short} --{name})"
    return f"'{excluded}'{{-{short}{plus},--{name}{equals}}}'{tail}'"


def _zsh_text(text: str) -> str:
    for character in ("\\", "[", "]", ":"):
        text = text.replace(character, f"\\{character}")
    return text


_FISH = """\
# fish completion for @NAME@
# @NOTICE@

function _@FUNCTION@_containers
    @NAME@ list --quiet 2>/dev/null
end

complete -c @NAME@ -f
@LINES@
"""


def fish(notice: str) -> str:
    """The script for fish."""
    lines = [f"complete -c {NAME} -n __fish_use_subcommand {_fish_flag(flag)}" for flag in _flags("")]
    lines += [
        f"complete -c {NAME} -n __fish_use_subcommand -a {verb} -d '{_fish_text(COMMANDS[verb][0])}'"
        for verb in shown()
    ]
    for verb in shown():
        seen = f"complete -c {NAME} -n '__fish_seen_subcommand_from {verb}'"
        lines += [f"{seen} {_fish_flag(flag)}" for flag in _flags(verb)]
        if verb in EXISTING:
            lines.append(f"{seen} -a '(_{FUNCTION}_containers)'")
    lines.append(f"complete -c {NAME} -n '__fish_seen_subcommand_from help' -a '{' '.join(shown())}'")
    return _filled(_FISH, {"LINES": "\n".join(lines), "NOTICE": notice})


def _fish_flag(flag: Flag) -> str:
    name, short, kind, _, _, text = flag
    parts = [f"-l {name}", *([f"-s {short}"] if short else [])]
    if kind != BOOL:
        words = values_of(flag)
        parts.append(
            {FILES: "-r -F", DIRECTORIES: "-x -a '(__fish_complete_directories)'", NOTHING: "-x"}.get(words)
            or f"-x -a '{words}'"
        )
    return f"{' '.join(parts)} -d '{_fish_text(text)}'"


def _fish_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _single(text: str) -> str:
    """`text` for the inside of single quotes in a POSIX shell."""
    return text.replace("'", "'\\''")


def _filled(template: str, values: dict[str, str]) -> str:
    for key, value in {**values, "FUNCTION": FUNCTION, "NAME": NAME}.items():
        template = template.replace(f"@{key}@", value)
    return template

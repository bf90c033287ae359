"""Write docs/compatibility.md: every command, flag and field of config.json, what proves it, and who else takes it.

The rows come from the program's own tables, the proofs from tests/compatibility/proofs.toml, what other runtimes do
from tests/compatibility/peers.toml. A test holds the page to them (tests/guard/test_compatibility.py).
"""

from __future__ import annotations

import pathlib
import tomllib
from typing import TYPE_CHECKING, TypedDict, cast

from sysvisor_runc.cli.table import COMMANDS, GLOBALS, shown
from sysvisor_runc.spec.schema import SPEC, Map, Object

TREE = pathlib.Path(__file__).resolve().parents[1]
PAGE = TREE / "docs/compatibility.md"
SOURCES = TREE / "tests/compatibility"
YES, TAKEN, NO = "yes", "ignored", "–"
# A list of objects with no more fields than this is one row.
_SMALL = 4
# Fields of config.json by what they are about: title, and what their rows begin with. The last that fits has it.
GROUPS = (
    ("The container as a whole", ""),
    ("The process", "process."),
    ("Mounts", "mounts."),
    ("Hooks", "hooks."),
    ("Linux", "linux."),
    ("Limits", "linux.resources."),
    ("Seccomp", "linux.seccomp."),
    ("Intel RDT, memory policy", "linux.intelRdt."),
    ("Intel RDT, memory policy", "linux.memoryPolicy."),
)

HEAD = """\
# What is compatible with what

<!-- generated from sysvisor_runc/cli/table.py, sysvisor_runc/spec/schema.py and tests/compatibility by `make docs` -->

Every command, every flag and every field of config.json that `sysvisor-runc` knows, the test that proves it, and
whether other runtimes take it. What they have and `sysvisor-runc` has not is listed as well. They are

{peers}

- **yes**: it is taken and does what it says.
- **ignored**: it is accepted and has no effect, perhaps with a warning.
- **–**: it is not known: a flag is an error then, a field of config.json has no effect.

What is said of the others was read from their sources: a flag counts where their parser knows it and their code looks
at it, a field where their code reads it. How well they do it was not tried. `--help` and `--version`, which all have,
are left out. A proof is `folder/file` and the name of a test below `tests/`. *Not proven* is what no test shows, and
why.
"""

COMMANDS_TEXT = """
## Commands

`youki` calls its `checkpoint` command `checkpointt`. `sysbox-runc` has the sources of `checkpoint` and `restore`, but
not the commands. `crun mounts` changes mounts of a container that runs, `youki info` shows what `sysvisor-runc doctor`
does, and `youki completion` prints what `make install` installs.
"""

FLAGS_TEXT = """
## Flags
"""

FIELDS_TEXT = """
## Fields of config.json

A system container takes the same fields; where it does something else with them than a plain container, see
[system-containers.md](system-containers.md). A list of small objects is one row. Limits are those of the kernel's
cgroup version: what v1 alone has is refused or left out on v2, as runc does.
"""

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    class Facts(TypedDict):
        """What peers.toml says of a runtime."""

        title: str
        version: str
        source: str
        ignored: list[str]
        lacks: list[str]
        commands: dict[str, str]

    # A test, some, or why there is none.
    Entry = str | list[str] | dict[str, str]
    Entries = dict[str, Entry]

    class Proofs(TypedDict):
        """What proofs.toml says."""

        commands: Entries
        flags: dict[str, Entries]
        fields: Entries


# Name, what becomes of it here and elsewhere, and the proof.
Row = tuple[str, str, list[str], str]


class Peer:
    """Another runtime."""

    def __init__(self, facts: Facts) -> None:
        self.name = facts["title"]
        self.title = f"{self.name} {facts['version']}"
        self.source = facts["source"]
        self.ignored = facts["ignored"]
        self.lacks = facts["lacks"]
        self.commands = {verb: flags.split() for verb, flags in facts["commands"].items()}

    def has_flag(self, verb: str, flag: str) -> str:
        """What becomes of a flag of a command."""
        flags = self.commands.get(verb, [])
        return YES if flag in flags else TAKEN if f"{flag}~" in flags else NO

    def reads(self, field: str) -> str:
        """What becomes of a field of config.json."""
        for names, answer in ((self.ignored, TAKEN), (self.lacks, NO)):
            if any(field == name or field.startswith(f"{name}.") for name in names):
                return answer
        return YES


def fields(rule: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Every row of config.json below a rule, and the names of the fields that are in it."""
    inner = rule[0] if isinstance(rule, list) else rule.rule if isinstance(rule, Map) else rule
    if not isinstance(inner, Object):
        yield path, ""
    elif inner is not rule and len(inner.fields) <= _SMALL and all(_is_plain(one) for one in inner.fields.values()):
        yield path, ", ".join(f"`{name}`" for name in inner.fields)
    else:
        for name, one in inner.fields.items():
            yield from fields(one, f"{path}.{name}" if path else name)


def _is_plain(rule: object) -> bool:
    return not isinstance(rule[0] if isinstance(rule, list) else rule, Object | Map)


def flags() -> dict[str, list[str]]:
    """The flags of each command; "" has the global ones."""
    known = {"": GLOBALS} | {verb: command[5] for verb, command in COMMANDS.items()}
    return {verb: [one[0] for one in table if one[0] not in ("help", "version")] for verb, table in known.items()}


def load() -> tuple[list[Peer], Proofs]:
    """The other runtimes, and our proofs."""
    peers = tomllib.loads((SOURCES / "peers.toml").read_text())
    proofs = tomllib.loads((SOURCES / "proofs.toml").read_text())
    return [Peer(cast("Facts", facts)) for facts in peers.values()], cast("Proofs", proofs)


def page() -> str:
    """The page."""
    peers, proofs = load()
    text = HEAD.format(peers="\n".join(f"- [{peer.title}]({peer.source})" for peer in peers))
    text += COMMANDS_TEXT + _table("command", peers, _command_rows(peers, proofs["commands"]))
    text += FLAGS_TEXT
    for verb in ["", *sorted({*flags(), *(name for peer in peers for name in peer.commands)} - {""})]:
        rows = list(_flag_rows(verb, peers, proofs["flags"].get(verb, {})))
        if rows:
            text += f"\n### {f'`{verb}`' if verb else 'Before the command'}\n{_table('flag', peers, rows)}"
    return text + FIELDS_TEXT + _field_tables(peers, proofs["fields"])


def _command_rows(peers: list[Peer], proofs: Entries) -> Iterator[Row]:
    for verb in sorted({*shown(), *(verb for peer in peers for verb in peer.commands if verb)}):
        theirs = [YES if verb in peer.commands else NO for peer in peers]
        yield f"`{verb}`", YES if verb in COMMANDS else NO, theirs, _proof(proofs.get(verb, []))


def _flag_rows(verb: str, peers: list[Peer], proofs: Entries) -> Iterator[Row]:
    ours = flags().get(verb, [])
    theirs = {name.rstrip("~") for peer in peers for name in peer.commands.get(verb, ())}
    for name in [*ours, *sorted(theirs - {*ours})]:
        entry = proofs.get(name, [])
        own = _becomes(entry) if name in ours else NO
        yield f"`--{name}`", own, [peer.has_flag(verb, name) for peer in peers], _proof(entry)


def _field_tables(peers: list[Peer], proofs: Entries) -> str:
    rows: dict[str, list[Row]] = {title: [] for title, _ in GROUPS}
    for field, inside in fields(SPEC):
        title = [title for title, prefix in GROUPS if field.startswith(prefix)][-1]
        name = f"`{field}` ({inside})" if inside else f"`{field}`"
        entry = proofs.get(field, [])
        rows[title].append((name, _becomes(entry), [peer.reads(field) for peer in peers], _proof(entry)))
    return "".join(f"\n### {title}\n{_table('field', peers, found)}" for title, found in rows.items())


def _becomes(entry: Entry) -> str:
    return TAKEN if isinstance(entry, dict) and "ignored" in entry else YES


def _table(what: str, peers: list[Peer], rows: Iterable[Row]) -> str:
    names = [what, "sysvisor-runc", *(peer.name for peer in peers), "proved by"]
    lines = ["", f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [f"| {' | '.join([name, own, *theirs, proof])} |" for name, own, theirs, proof in rows]
    return "\n".join(lines) + "\n"


def tests_of(entry: Entry) -> list[str]:
    """The names of the tests in an entry of the proofs."""
    found = entry.get("ignored", []) if isinstance(entry, dict) else entry
    return [found] if isinstance(found, str) else found


def _proof(entry: Entry) -> str:
    if isinstance(entry, dict) and "unproven" in entry:
        return f"*not proven*: {entry['unproven']}"
    links = []
    for name in tests_of(entry):
        file, _, test = name.partition("::")
        links.append(f"[{file}](../tests/{file}.py) {test.removeprefix('test_')}")
    return ", ".join(links)


if __name__ == "__main__":
    PAGE.write_text(page())

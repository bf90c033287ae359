"""Our shape check and the specification's JSON schema judge alike, but for a list of deliberate differences."""

import contextlib
import copy
import functools
import json
import pathlib
import re
from collections.abc import Iterator

import jsonschema
import pytest

from sysvisor_runc.errors import SpecError
from sysvisor_runc.spec.load import load
from sysvisor_runc.spec.schema import SPEC
from sysvisor_runc.spec.validate import check, validate

DATA = pathlib.Path(__file__).parents[2] / "data"
SCHEMA = DATA / "oci-schema"
EXAMPLES = SCHEMA / "test" / "config"
GOOD = sorted((EXAMPLES / "good").iterdir())
BAD = sorted((EXAMPLES / "bad").iterdir())
# Every field that there is, so that every field gets mutated.
FULL = json.loads((DATA / "full-config.json").read_text())

DELETED = object()
REPLACEMENTS: tuple[object, ...] = (
    DELETED,
    None,
    True,
    -1,
    0,
    5,
    2**16,
    2**31,
    2**32,
    2**63,
    2**64,
    -(2**63) - 1,
    1.5,
    "",
    "RLIMIT_NEW",
    [],
    ["x"],
    [1],
    {},
    {"x": 1},
    {"x": "y"},
)

# Accepted by us, refused by the schema: path (an index is empty) and value → why.
LAXER = {
    r".*=None": "null is absent, as for every runtime written in Go",
    r".*Mappings\.(containerID|hostID)=DELETED": "absent is zero, as for runc",
    r".*Device\.(major|minor)=DELETED": "absent is zero, as for runc",
    r"process\.rlimits\.(hard|soft)=DELETED": "absent is zero, as for runc",
    r"process\.consoleSize\.(height|width)=DELETED": "absent is zero, as for runc",
    r"linux\.resources\.network\.priorities\.priority=DELETED": "absent is zero, as for runc",
    r"linux\.resources\.hugepageLimits\.limit=DELETED": "absent is zero, as for runc",
    r"linux\.resources\.devices\.allow=DELETED": "absent is false, as for runc",
    r"linux\.resources\.pids\.limit=DELETED": "absent is no limit, as for runc",
    r"linux\.seccomp\.syscalls\.args\.(index|value)=DELETED": "absent is zero, as for runc",
    r"linux\.seccomp\.defaultAction=(DELETED|'')": "with no system calls it switches seccomp off, as for runc",
    r"(process\.consoleSize|linux\.resources\.pids|linux\.seccomp)=\{.*": "an object that lacks such fields",
    r"linux\.resources\.(devices|blockIO\.\w+Device)\.=\{.*": "an object that lacks such fields",
    r"linux\.rootfsPropagation=''": "empty is absent, as for runc",
    r"linux\.devices\.fileMode=.*": "clients hand over st_mode with the file type in it",
    r"linux\.intelRdt\.memBwSchema=.*": "resctrl judges the text",
    r"linux\.seccomp\.syscalls\.names(=\[\]|\.=DELETED)": "no name is no rule, as for runc",
    r"process\.execCPUAffinity\.(initial|final)=.*": "the rules judge it, and say why",
    r"linux\.memoryPolicy\.mode=.*": "the rules judge it, in runc's words",
    r"linux\.memoryPolicy\.flags(\.)?=.*": "the rules judge it, in runc's words",
    r"linux\.resources\.hugepageLimits\.pageSize=.*": "the rules judge it, and say why",
}
# Refused by us, accepted by the schema.
STRICTER = {
    r"process\.oomScoreAdj=.*": "the kernel takes -1000 to 1000",
    r"process\.rlimits\.type=.*": "getrlimit(2) knows sixteen",
    r"linux\.seccomp\.syscalls\.args\.index=.*": "a system call has six arguments",
    r"linux\.timeOffsets\.\w+\.nanosecs=.*": "a timespec has less than a second of nanoseconds",
    r"linux\.timeOffsets=\{.*": "an unknown clock is no time offset",
    r"linux\.personality(=\{.*|\.domain=DELETED)": "runc refuses a personality without a domain",
    r"linux\.resources\.devices\.type=.*": "runc knows a, b and c",
    r"hooks\.\w+\.timeout=.*": "runc reads an int64",
}


def schema_validator() -> jsonschema.Draft4Validator:
    store = {path.resolve().as_uri(): json.loads(path.read_text()) for path in SCHEMA.glob("*.json")}
    root = (SCHEMA / "config-schema.json").resolve().as_uri()
    with pytest.warns(DeprecationWarning, match="RefResolver"):
        resolver = jsonschema.RefResolver(root, store[root], store)
    return jsonschema.Draft4Validator(store[root], resolver=resolver)


def accepts(value: object) -> bool:
    try:
        check(value, SPEC, "")
    except SpecError:
        return False
    return True


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of the values below `value`."""
    # Two of a list tell as much as all of them.
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def mutate(value: object, path: tuple[str | int, ...], replacement: object) -> object:
    """A copy of `value` with another value at `path`."""
    mutated = copy.deepcopy(value)
    holder = mutated
    for key in path[:-1]:
        holder = holder[key]  # type: ignore[index]  # the path was found in it
    if replacement is DELETED:
        del holder[path[-1]]  # type: ignore[attr-defined]  # as above
    else:
        holder[path[-1]] = replacement  # type: ignore[index]  # as above
    return mutated


def label(path: tuple[str | int, ...], replacement: object) -> str:
    names = ".".join("" if isinstance(key, int) else key for key in path).replace("..", ".")
    return f"{names}={'DELETED' if replacement is DELETED else repr(replacement)}"


@functools.cache
def differences(example: str) -> dict[str, bool]:
    """Where the verdicts on the mutations of an example differ, and whether it is we who accept."""
    good = FULL if example == "full" else json.loads((EXAMPLES / "good" / f"{example}.json").read_text())
    validator = schema_validator()
    found = {}
    for index, path in enumerate(places(good)):
        # All of them for the one that has every field; a third each, in turn, elsewhere.
        for replacement in REPLACEMENTS if example == "full" else REPLACEMENTS[index % 3 :: 3]:
            mutated = mutate(good, path, replacement)
            ours = accepts(mutated)
            if ours != validator.is_valid(mutated):
                found[label(path, replacement)] = ours
    return found


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_good_examples_have_the_right_shape(path: pathlib.Path) -> None:
    """Every good example of the specification is well-formed to us."""
    value = json.loads(path.read_text())
    assert check(value, SPEC, "") == value


@pytest.mark.parametrize("name", ["minimal", "minimal-for-start", "linux-rdma", "spec-example"])
def test_good_examples_are_valid(name: str) -> None:
    """Good examples are usable too, where a process may be missing; netDevices alone lacks its namespace."""
    warnings: list[str] = []
    value = json.loads((EXAMPLES / "good" / f"{name}.json").read_text())
    # One example is older than the specification's first release, and has a label, which not every host knows.
    value.get("process", {}).pop("selinuxLabel", None)
    validate(value | {"ociVersion": "1.3.0"}, warnings, runnable=False)
    assert all("kernel memory" in warning for warning in warnings)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_examples_are_refused(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Every bad example of the specification is refused from file to rules."""
    (tmp_path / "config.json").write_bytes(path.read_bytes())
    with pytest.raises(SpecError):
        load(str(tmp_path))


def test_full_config_is_good_to_both() -> None:
    """The configuration that uses every field is valid by the schema and by us."""
    assert list(schema_validator().iter_errors(FULL)) == []
    assert validate(FULL) is FULL


def test_full_config_uses_every_field() -> None:
    """No field of our tables is missing from the configuration that gets mutated."""

    def unused(rule: object, value: object, path: str) -> Iterator[str]:
        if hasattr(rule, "fields") and isinstance(value, dict):
            for key, inner in rule.fields.items():
                if key not in value:
                    yield f"{path}.{key}"
                else:
                    yield from unused(inner, value[key], f"{path}.{key}")
        elif hasattr(rule, "rule") and isinstance(value, dict):
            yield from unused(rule.rule, next(iter(value.values())), path)
        elif isinstance(rule, list) and isinstance(value, list) and value:
            yield from unused(rule[0], max(value, key=lambda item: len(str(item))), path)

    # Windows' own, and SELinux, which not every host has.
    assert set(unused(SPEC, FULL, "")) == {
        ".process.commandLine",
        ".process.user.username",
        ".process.selinuxLabel",
    } | {
        f".hooks.{kind}.{field}"
        for kind in ("createRuntime", "createContainer", "startContainer", "poststart", "poststop")
        for field in ("args", "env", "timeout")
    }


@pytest.mark.parametrize("example", ["full", *[path.stem for path in GOOD]])
def test_mutations_are_judged_alike(example: str) -> None:
    """Whatever value is put wherever, our verdict is the schema's, or the difference is listed above."""
    unlisted = [
        f"{text}: {'we accept' if ours else 'we refuse'}"
        for text, ours in differences(example).items()
        if not any(re.fullmatch(pattern, text) for pattern in (LAXER if ours else STRICTER))
    ]
    assert not unlisted, "\n".join(unlisted)


@pytest.mark.parametrize("ours", [True, False], ids=["laxer", "stricter"])
def test_every_listed_difference_exists(ours: bool) -> None:
    """The lists above hold nothing that has ceased to be different."""
    texts = [text for text, verdict in differences("full").items() if verdict is ours]
    assert [p for p in (LAXER if ours else STRICTER) if not any(re.fullmatch(p, text) for text in texts)] == []


def test_no_mutation_breaks_the_rules() -> None:
    """Whatever value is put wherever, the whole check ends with a configuration or with a SpecError."""
    for path in places(FULL):
        for replacement in REPLACEMENTS:
            with contextlib.suppress(SpecError):
                validate(mutate(FULL, path, replacement))

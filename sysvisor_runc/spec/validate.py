"""config.json is checked once, here: shape by the tables of `schema`, meaning by the rules of `rules`.

Imports those two and nothing else, since it runs before every launch. Fields that the specification does not know are
ignored, as it demands; `null` counts as absent, as for every runtime written in Go.
"""

from __future__ import annotations

from sysvisor_runc import jsonlight
from sysvisor_runc.errors import SpecError
from sysvisor_runc.spec import rules
from sysvisor_runc.spec.schema import PROCESS, RESOURCES, SPEC, Map, Object, Text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from sysvisor_runc.spec.schema import Rule
    from sysvisor_runc.spec.types import LinuxResources, Process, Spec

    # What the file leaves out: the object, the key, and the value it stands for (None: to be removed).
    Hole = tuple[dict[str, object], str, object]


class _Flaw(Exception):
    """What is wrong; the path grows from the inside out as it passes through the objects that hold the value."""

    def __init__(self, problem: str, key: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = key

    def inside(self, key: str | int) -> None:
        if isinstance(key, int):
            key = f"[{key}]"
        elif not key or not key.replace("_", "").isalnum():
            # A name chosen by the user, with dots perhaps: `sysctl["net.core.somaxconn"]`.
            key = f"[{jsonlight.dumps(key)}]"
        self.path = key if not self.path else key + self.path if self.path[0] == "[" else f"{key}.{self.path}"


def validate(
    value: object,
    warn: list[str] | None = None,
    *,
    runnable: bool = True,
    rootless: bool = False,
    added: Collection[str] = (),
) -> Spec:
    """The configuration, if a container can be made from it; raises SpecError naming the JSON path otherwise.

    `value` is never changed: a copy is returned where absent or null fields have to be filled in. `warn` collects what
    is odd but harmless. `runnable` demands a root and a process (the specification lets them be absent until start).
    `rootless` applies the narrower rules of a caller without privilege. `added` names namespaces that the conversion to
    a system container is going to add, so that settings which need them are not refused.
    """
    linux = value.get("linux") if isinstance(value, dict) else None
    resources = linux.get("resources") if isinstance(linux, dict) else None
    if _misspelled(resources):
        value = jsonlight.loads(jsonlight.dumps(value))
        _respell(value["linux"]["resources"])  # type: ignore[index]  # as found above
    spec: Spec = check(value, SPEC, "")  # type: ignore[assignment]  # checked to be one
    rules.check_spec(spec, [] if warn is None else warn, runnable=runnable, rootless=rootless, added=added)
    return spec


def validate_process(value: object) -> Process:
    """Like `validate`, for a process alone, as `exec --process` reads it; paths begin with `process`."""
    process: Process = check(value, PROCESS, "process")  # type: ignore[assignment]  # checked to be one
    rules.check_process(process)
    return process


def validate_resources(value: object, warn: list[str] | None = None) -> LinuxResources:
    """Like `validate`, for resource limits alone, as `update -r` reads them; paths are relative to `resources`."""
    if _misspelled(value):
        value = jsonlight.loads(jsonlight.dumps(value))
        _respell(value)
    resources: LinuxResources = check(value, RESOURCES, "resources")  # type: ignore[assignment]  # checked to be one
    rules.check_resources(resources, [] if warn is None else warn, "resources")
    return resources


def _misspelled(resources: object) -> bool:
    """Whether a limit on huge pages says `pagesize`: runc takes names in any case, and this one is seen so."""
    limits = resources.get("hugepageLimits") if isinstance(resources, dict) else None
    return isinstance(limits, list) and any(isinstance(limit, dict) and "pagesize" in limit for limit in limits)


def _respell(resources: object) -> None:
    for limit in resources["hugepageLimits"]:  # type: ignore[index]  # as found before
        if isinstance(limit, dict) and "pagesize" in limit:
            limit.setdefault("pageSize", limit.pop("pagesize"))


def check(value: object, rule: Rule, path: str) -> object:
    """The value if it has the shape that the rule describes, a completed copy if it leaves something out."""
    holes: list[Hole] = []
    try:
        _walk(value, rule, holes)
        if holes:
            value = jsonlight.loads(jsonlight.dumps(value))
            holes.clear()
            _walk(value, rule, holes)
            _fill(holes)
    except _Flaw as flaw:
        if path:
            flaw.inside(path)
        if not flaw.path:
            raise SpecError("", f"invalid configuration: {flaw.problem}") from None
        raise SpecError(flaw.path, flaw.problem) from None
    except jsonlight.JSONError as error:
        raise SpecError(path, str(error)) from None
    return value


def _fill(holes: list[Hole]) -> None:
    for holder, key, zero in holes:
        if zero is None:
            del holder[key]
        else:
            holder[key] = dict(zero) if isinstance(zero, dict) else zero


def _walk(value: object, rule: Rule, holes: list[Hole]) -> None:
    kind = type(rule)
    if kind is Object:
        _walk_object(value, rule, holes)  # type: ignore[arg-type]  # mypy does not narrow `rule` by `kind`
    elif kind is list:
        _walk_array(value, rule[0], holes)  # type: ignore[index,arg-type]  # as above
    elif kind is type:
        if type(value) is not rule:
            raise _Flaw(_expected("true or false" if rule is bool else "a string", value))
        if rule is str and "\0" in value:  # type: ignore[operator]  # it is a string
            raise _Flaw("contains a NUL character")
    elif kind is tuple:
        _check_integer(value, rule)  # type: ignore[arg-type]  # as above
    elif kind is frozenset:
        if type(value) is not str or value not in rule:  # type: ignore[operator]  # as above
            raise _Flaw(_not_among(value, rule))  # type: ignore[arg-type]  # as above
    elif kind is Map:
        _walk_map(value, rule, holes)  # type: ignore[arg-type]  # as above
    elif kind is Text and type(value) is not str:
        raise _Flaw(_expected("a string", value))


def _walk_object(value: object, rule: Object, holes: list[Hole]) -> None:
    if not isinstance(value, dict):
        raise _Flaw(_expected("an object", value))
    fields = rule.fields
    for key, item in value.items():
        field = fields.get(key)
        if field is None:
            continue
        if item is None:
            holes.append((value, key, None))
            continue
        try:
            _walk(item, field, holes)
        except _Flaw as flaw:
            flaw.inside(key)
            raise
    for key in rule.required:
        if value.get(key) is None:
            raise _Flaw("is required but missing", key)
    if rule.zero:
        for key, zero in rule.zero.items():
            # A null is removed first and filled afterwards: both are holes, in this order.
            if value.get(key) is None:
                holes.append((value, key, zero))


def _walk_map(value: object, rule: Map, holes: list[Hole]) -> None:
    if not isinstance(value, dict):
        raise _Flaw(_expected("an object", value))
    item_rule = rule.rule
    for key, item in value.items():
        if item is None:
            holes.append((value, key, None))
            continue
        try:
            _walk(item, item_rule, holes)
        except _Flaw as flaw:
            flaw.inside(key)
            raise


def _walk_array(value: object, rule: Rule, holes: list[Hole]) -> None:
    if not isinstance(value, list):
        raise _Flaw(_expected("an array", value))
    if rule is str and set(map(type, value)) <= {str} and "\0" not in "".join(value):
        # The bulk of every file: lists of system call names, paths and options.
        return
    for index, item in enumerate(value):
        try:
            _walk(item, rule, holes)
        except _Flaw as flaw:
            flaw.inside(index)
            raise


def _check_integer(value: object, bounds: tuple[int, int]) -> None:
    if type(value) is not int:
        raise _Flaw(_expected("an integer", value))
    if not bounds[0] <= value <= bounds[1]:
        raise _Flaw(f"{value} is out of range, expected {bounds[0]} to {bounds[1]}")


def _not_among(value: object, names: frozenset[str]) -> str:
    known = ", ".join(sorted(name for name in names if name))
    if type(value) is not str:
        return _expected(f"one of {known}", value)
    return f"unknown value {jsonlight.dumps(value)}, expected one of {known}"


def _expected(what: str, value: object) -> str:
    if isinstance(value, dict):
        got = "an object"
    elif isinstance(value, list):
        got = "an array"
    else:
        try:
            got = jsonlight.dumps(value)
        except jsonlight.JSONError:
            got = f"a {type(value).__name__}"
        if len(got) > 40:
            got = got[:40] + "…"
    return f"expected {what}, got {got}"

"""The layer table of ARCHITECTURE.md: which package may know which."""

import graphlib

import pytest

from tests.support import source

BOTTOM = {"errors", "log", "version", "jsonlight", "kernel"}
# What each package or top-level module may import of ours, itself aside.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "log": set(),
    "version": set(),
    "kernel": {"errors"},
    "jsonlight": {"errors"},
    "contract": set(),
    "child": {"kernel"},
    "spec": {"errors", "log", "jsonlight"},
    "syscont": {"errors", "spec"},
    "plan": {"errors", "log", "version", "spec", "syscont", "kernel", "child"},
    "cgroup": {*BOTTOM, "spec"},
    "state": {*BOTTOM, "spec"},
    "supervise": {*BOTTOM, "spec", "state"},
    "launch": {*BOTTOM, "contract", "spec", "syscont", "plan", "cgroup", "state", "child", "supervise"},
    "aio": {*BOTTOM, "contract", "spec", "syscont", "plan", "cgroup", "state", "child", "launch", "supervise"},
    "criu": {*BOTTOM, "contract", "spec", "plan", "cgroup", "state", "child", "launch", "aio"},
    "cli": {
        *BOTTOM,
        "contract",
        "spec",
        "syscont",
        "plan",
        "cgroup",
        "state",
        "child",
        "launch",
        "supervise",
        "aio",
        "criu",
    },
}
# For the type checker only, a lower package may name the values it is handed.
MAY_NAME = {"spec", "errors"}
# These may be named in one package only (None: nowhere).
HEAVY: dict[str, str | None] = {
    "asyncio": "aio",
    "grpc": "aio",
    "pyroute2": "aio",
    "uvloop": "aio",
    "argparse": None,
    "prctl": "aio",
}


def part(module: str) -> str:
    """`sysvisor_runc.kernel.mount` → `kernel`."""
    return module.split(".")[1] if "." in module else ""


def offences(module: source.Module) -> list[str]:
    """The imports of a module that the table forbids, as `file:line: what`."""
    here = part(module.name)
    found = []
    for item in source.imports(module):
        if not item.target.startswith("sysvisor_runc."):
            continue
        there = part(item.target)
        allowed = MAY_IMPORT[here] | {here} | (MAY_NAME if item.typing_only else set())
        if there not in allowed:
            found.append(f"{module}:{item.line}: {here} imports {item.target}")
    return found


def runtime_modules() -> list[source.Module]:
    return [module for module in source.modules() if module.name.startswith("sysvisor_runc.")]


def test_every_part_is_in_the_table() -> None:
    """A new package or top-level module takes a place in the layers before it lands."""
    assert {part(module.name) for module in runtime_modules()} <= set(MAY_IMPORT)


def test_the_table_has_no_cycle() -> None:
    """The table itself is a partial order: nothing may import what may import it."""
    for upper, lower in MAY_IMPORT.items():
        for name in lower:
            assert upper not in MAY_IMPORT[name], f"{upper} and {name} may import each other"


def test_imports_point_down() -> None:
    """No module imports from a layer above or beside its own."""
    assert [line for module in runtime_modules() for line in offences(module)] == []


def circle() -> list[str]:
    """Modules of which each imports the next one, the last being the first; none where imports have an order."""
    modules = {module.name: module for module in source.modules()}
    order = graphlib.TopologicalSorter(
        {
            name: {item.target for item in source.imports(module) if item.target in modules and item.target != name}
            for name, module in modules.items()
        }
    )
    try:
        order.prepare()
    except graphlib.CycleError as found:
        return list(found.args[1])
    return []


def test_no_files_know_each_other() -> None:
    """Imports have an order inside a package, too: no circle of files, be it for the type checker or in functions."""
    assert circle() == []


@pytest.mark.parametrize("library", HEAVY)
def test_heavy_libraries_stay_in_their_package(library: str) -> None:
    """What costs tens of milliseconds is named in one package only, also inside functions."""
    home = HEAVY[library]
    found = [
        f"{module}:{item.line}"
        for module in runtime_modules()
        for item in source.imports(module)
        if item.target.split(".")[0] == library and part(module.name) != home
    ]
    assert found == []


def test_child_knows_only_the_kernel_and_itself() -> None:
    """What runs in the container loads nothing but kernel/, child/ and modules that are part of the interpreter."""
    allowed = {"os", "sys", "errno", "struct", "_struct", "_socket", "_signal", "_ctypes", "stat", "fcntl", "resource",
               "termios", "time", "select", "array", "__future__"}  # fmt: skip
    found = [
        f"{module}:{item.line}: {item.target}"
        for module in runtime_modules()
        if part(module.name) == "child"
        for item in source.imports(module)
        if not item.typing_only and not item.target.startswith("sysvisor_runc.") and item.target not in allowed
    ]
    assert found == []


def test_runtime_never_imports_the_daemon() -> None:
    """sysvisor_runc talks to sysvisor_fs over its contract only."""
    found = [
        str(module)
        for module in runtime_modules()
        for item in source.imports(module)
        if item.target.split(".")[0] == "sysvisor_fs"
    ]
    assert found == []


def test_package_files_are_empty() -> None:
    """Every import passes through `__init__.py`, so nothing is in it."""
    full = [str(module) for module in runtime_modules() if module.path.name == "__init__.py" and module.text]
    assert full == []
    assert (source.ROOT / "sysvisor_runc/__init__.py").read_text() == ""

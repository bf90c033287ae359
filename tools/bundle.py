"""Pack the library into one file that starts in half the time: `python3 tools/bundle.py LIBRARY`.

A command imports some seventy small modules, and each costs a search, an open, a read and a trip through the import
machinery. The bundle holds all of them, compiled without what only a reader or a traceback needs (docstrings,
annotations, line tables), with the order in which each verb's modules can simply be executed one after the other.
`--debug` does without it, so that tracebacks have their lines.

The file is one marshal value: (magic number of the bytecode, source of the loader's code, modules, orders). The entry
script executes the loader, which is LOADER below; another version of Python finds another magic number and imports the
ordinary modules.
"""

from __future__ import annotations

import ast
import importlib.util
import marshal
import pathlib
import subprocess
import sys
import types

FILE = "sysvisor-runc.bundle"
# The verbs that are measured, and those that a caller repeats; the others find their modules one by one.
VERBS = ("run", "create", "start", "exec", "state", "kill", "delete", "list", "ps", "pause", "resume")
# What a verb imports only once it is under way, in ordinary use.
LATER = {
    "run": ("launch.foreground", "cgroup.devices", "cgroup.resources_v1"),
    "create": ("cgroup.devices", "cgroup.resources_v1"),
    "exec": ("launch.foreground",),
}

LOADER = '''
import sys
from _frozen_importlib import ModuleSpec
from marshal import loads
import gc

# A command is over before there is any garbage worth collecting.
gc.disable()


class Finder:
    """Finds in the bundle what was not executed beforehand."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        found = modules.get(name)
        if found is None:
            return None
        spec = ModuleSpec(name, Finder, origin="bundle", is_package=found[0])
        if found[0]:
            spec.submodule_search_locations = [library + "/" + name.replace(".", "/")]
        return spec

    @staticmethod
    def create_module(spec):
        return None

    @staticmethod
    def exec_module(module):
        exec(loads(modules[module.__name__][1]), module.__dict__)


def preload(names):
    table = sys.modules
    kind = type(sys)
    for name in names:
        package, code = modules[name]
        module = kind(name)
        scope = module.__dict__
        scope["__spec__"] = None
        parent, _, leaf = name.rpartition(".")
        if package:
            scope["__package__"] = name
            scope["__path__"] = [library + "/" + name.replace(".", "/")]
        else:
            scope["__package__"] = parent
        table[name] = module
        exec(loads(code), scope)
        if parent:
            setattr(table[parent], leaf, module)


sys.meta_path.insert(0, Finder)
for word in sys.argv[1:]:
    if word in orders:
        preload(orders[word])
        break
'''


class _Slim(ast.NodeTransformer):
    """Take out annotations, type-checking blocks and `from __future__`, none of which does anything at run time."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.returns = None
        arguments = node.args
        for argument in (
            *arguments.posonlyargs,
            *arguments.args,
            *arguments.kwonlyargs,
            arguments.vararg,
            arguments.kwarg,
        ):
            if argument is not None:
                argument.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return node.orelse or ast.copy_location(ast.Pass(), node)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        return ast.copy_location(ast.Pass(), node) if node.module == "__future__" else node


def compile_slim(source: str, name: str) -> types.CodeType:
    """The code of one module without docstrings, annotations and line tables."""
    tree = ast.fix_missing_locations(_Slim().visit(ast.parse(source)))
    return _without_lines(compile(tree, name, "exec", dont_inherit=True, optimize=2))


def _without_lines(code: types.CodeType) -> types.CodeType:
    constants = tuple(_without_lines(c) if isinstance(c, types.CodeType) else c for c in code.co_consts)
    return code.replace(co_linetable=b"", co_consts=constants)


def execution_order(library: pathlib.Path, verb: str) -> list[str]:
    """The modules that `verb` imports, in the order in which their execution ended: each after what it needs."""
    wanted = ["sysvisor_runc.cli.main", f"sysvisor_runc.cli.{verb}"]
    wanted += [f"sysvisor_runc.{name}" for name in LATER.get(verb, ())]
    program = f"""
import sys
sys.path.insert(0, {str(library)!r})
from _frozen_importlib_external import SourceFileLoader
ended, execute = [], SourceFileLoader.exec_module
def exec_module(self, module):
    execute(self, module)
    ended.append(module.__name__)
SourceFileLoader.exec_module = exec_module
import {", ".join(wanted)}
print("\\n".join(name for name in ended if name.startswith("sysvisor_runc")))
"""
    return subprocess.run(
        [sys.executable, "-SIB", "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()


def build(library: pathlib.Path) -> bytes:
    """The bundle of the library in `library`."""
    modules: dict[str, tuple[bool, bytes]] = {}
    for path in sorted((library / "sysvisor_runc").rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if package else parts)
        modules[name] = (package, marshal.dumps(compile_slim(path.read_text(), name)))
    orders = {verb: execution_order(library, verb) for verb in VERBS}
    loader = marshal.dumps(_without_lines(compile(LOADER, "loader", "exec", dont_inherit=True, optimize=2)))
    return marshal.dumps((importlib.util.MAGIC_NUMBER, loader, modules, orders))


def main() -> None:
    """Write the bundle into the library."""
    library = pathlib.Path(sys.argv[1]).resolve()
    (library / FILE).write_bytes(build(library))


if __name__ == "__main__":
    main()

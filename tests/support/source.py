"""The project's own source, read as syntax trees and tokens: for the guard tests that hold its structure."""

import ast
import functools
import io
import pathlib
import tokenize
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = tuple(ROOT / name for name in ("sysvisor_runc", "sysvisor_fs") if (ROOT / name).is_dir())
GENERATED = ("_pb2.py", "_build.py")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


class Module:
    """One source file. `name` is dotted; `tree` its syntax tree; `lines` the numbers of its code lines."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        self.text = path.read_text()
        self.tree = ast.parse(self.text, str(path))
        self.lines = code_lines(self.text, self.tree)

    def __repr__(self) -> str:
        return str(self.path.relative_to(ROOT))

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Every function and method, nested ones included."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node

    def length(self, node: Definition) -> int:
        """Code lines from `def` to the end."""
        return sum(node.lineno <= line <= (node.end_lineno or 0) for line in self.lines)


@functools.cache
def modules() -> tuple[Module, ...]:
    """Every module of the project's packages that a person wrote; read once, since reading all takes a second."""
    return tuple(
        Module(path)
        for package in PACKAGES
        for path in sorted(package.rglob("*.py"))
        if not path.name.endswith(GENERATED)
    )


def _docstring_lines(tree: ast.Module) -> set[int]:
    """The lines that docstrings cover."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | Definition) or not node.body:
            continue
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            found.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return found


def code_lines(text: str, tree: ast.Module) -> set[int]:
    """The lines that hold a token that is not a comment, a docstring or blank."""
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _SILENT:
            found.update(range(token.start[0], token.end[0] + 1))
    return found - _docstring_lines(tree)


def _is_type_checking(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


class Import:
    """One imported module: `target` dotted, `line`, and whether it is for the type checker only."""

    def __init__(self, target: str, line: int, typing_only: bool) -> None:
        self.target = target
        self.line = line
        self.typing_only = typing_only


def imports(module: Module) -> list[Import]:
    """Everything that a module imports, at its top or inside a function."""
    found: list[Import] = []

    def visit(node: ast.AST, typing_only: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from sysvisor_runc import errors` names a module, `from sysvisor_runc.errors import X` does too.
            found.extend(
                Import(
                    f"{node.module}.{alias.name}" if _is_module(node.module, alias.name) else node.module,
                    node.lineno,
                    typing_only,
                )
                for alias in node.names
            )
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            for statement in node.body:
                visit(statement, True)
            for statement in node.orelse:
                visit(statement, typing_only)
        else:
            for child in ast.iter_child_nodes(node):
                visit(child, typing_only)

    visit(module.tree, False)
    return found


def _is_module(package: str, name: str) -> bool:
    path = ROOT.joinpath(*package.split("."), name)
    return path.is_dir() or path.with_suffix(".py").is_file()

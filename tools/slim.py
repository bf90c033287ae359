"""Compile a module without what only its readers need: docstrings, annotations, type-checking blocks, line tables.

Importing runs the code that makes annotations and unmarshals the rest, each time a command starts. Tracebacks are shown
with `--debug` alone, which runs the ordinary files.
"""

import ast
import types


class _Slim(ast.NodeTransformer):
    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._without_docstring(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        if any(isinstance(base, ast.Name) and base.id == "NamedTuple" for base in node.bases):
            # Its annotations are its fields; of what type, only readers need to know.
            for entry in node.body:
                if isinstance(entry, ast.AnnAssign):
                    entry.annotation = ast.Constant(None)
            fields = [entry for entry in node.body if isinstance(entry, ast.AnnAssign)]
            node.body = [entry for entry in node.body if entry not in fields] or [ast.Pass()]
            self._without_docstring(node)
            node.body = [*fields, *node.body]
            return ast.fix_missing_locations(node)
        return self._without_docstring(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._without_annotations(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._without_annotations(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """`name: type = value` is an assignment; without a value it is nothing."""
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
        """`from __future__ import annotations` would import a module, and there are no annotations left."""
        return ast.copy_location(ast.Pass(), node) if node.module == "__future__" else node

    def _without_annotations(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        arguments = node.args
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        for argument in (*named, arguments.vararg, arguments.kwarg):
            if argument is not None:
                argument.annotation = None
        return self._without_docstring(node)

    def _without_docstring(self, node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        self.generic_visit(node)
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:] or [ast.copy_location(ast.Pass(), first)]
        return node


def compile_slim(source: bytes, name: str) -> types.CodeType:
    """The code of one module; `name` is the path that tracebacks show."""
    tree = ast.fix_missing_locations(_Slim().visit(ast.parse(source)))
    return _without_lines(compile(tree, name, "exec", dont_inherit=True))


def _without_lines(code: types.CodeType) -> types.CodeType:
    constants = tuple(_without_lines(c) if isinstance(c, types.CodeType) else c for c in code.co_consts)
    return code.replace(co_linetable=b"", co_consts=constants)

"""Puts library and program where `make install` says: compiled ahead, docstrings left out of the compiled files.

A command loads all its code anew each time, so what is loaded is kept small (docs/performance.md has the figures). The
sources stay beside the compiled files, for tracebacks and for an interpreter of another version.
"""

import argparse
import ast
import importlib.util
import marshal
import os
import pathlib
import shutil
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[1]
PROGRAM = SOURCE / "bin/sysvisor-runc"
FLAG_UNCHECKED_HASH = 0b01  # PEP 552: a hash-based pyc that is never compared with its source


def without_docstrings(tree: ast.Module) -> ast.Module:
    """The same program without its docstrings; assertions stay, unlike under -OO."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.copy_location(ast.Pass(), first)]
    return tree


def compile_file(installed: pathlib.Path, name: str) -> None:
    """Write the compiled file of one module; `name` is the path that tracebacks show."""
    text = installed.read_bytes()
    code = compile(without_docstrings(ast.parse(text)), name, "exec", dont_inherit=True)
    cached = pathlib.Path(importlib.util.cache_from_source(str(installed)))
    cached.parent.mkdir(exist_ok=True)
    head = importlib.util.MAGIC_NUMBER + FLAG_UNCHECKED_HASH.to_bytes(4, "little") + importlib.util.source_hash(text)
    cached.write_bytes(head + marshal.dumps(code))


def program_text(python: str, library: str) -> str:
    """The program with its interpreter and the place of its library filled in."""
    lines = PROGRAM.read_text().splitlines()
    lines[0] = f"#!{python} -SI"
    marked = [number for number, line in enumerate(lines) if line.startswith("sys.path.append(")]
    if len(marked) != 1:
        raise ValueError(f"{PROGRAM}: no line that names the library")
    lines[marked[0]] = f"sys.path.append({library!r})"
    return "\n".join(lines) + "\n"


def install(options: argparse.Namespace) -> None:
    """Copy, generate, compile. Replaces the library of an earlier version as a whole."""
    destination = pathlib.Path(f"{options.destdir}{options.library}")
    shutil.rmtree(destination, ignore_errors=True)
    for package in options.packages:
        shutil.copytree(
            SOURCE / package, destination / package, ignore=shutil.ignore_patterns("__pycache__", "_build.py")
        )
    build = destination / "sysvisor_runc/_build.py"
    subprocess.run(
        [sys.executable, str(SOURCE / "tools/buildinfo.py"), "--tags", options.tags, str(build)], check=True, cwd=SOURCE
    )
    for path in sorted(destination.rglob("*.py")):
        compile_file(path, f"{options.library}/{path.relative_to(destination)}")
    program = pathlib.Path(f"{options.destdir}{options.program}")
    program.parent.mkdir(parents=True, exist_ok=True)
    partial = program.with_name(f".{program.name}.new")
    partial.write_text(program_text(options.python, options.library))
    partial.chmod(0o755)
    os.replace(partial, program)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default="/usr/bin/python3", help="interpreter that the program names")
    parser.add_argument("--library", required=True, help="directory of the library")
    parser.add_argument("--program", required=True, help="path of the program")
    parser.add_argument("--destdir", default="", help="staging root in front of both")
    parser.add_argument("--tags", default="", help="build tags")
    parser.add_argument("packages", nargs="+", help="packages to install")
    install(parser.parse_args())
    return 0


if __name__ == "__main__":
    sys.exit(main())

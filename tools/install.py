"""Puts library and program where `make install` says, with the library's code compiled into one archive.

A command loads all its code anew each time: docs/performance.md has the figures. The sources stay beside the archive,
for tracebacks and for an interpreter of another version, which simply does not find an archive of its own.
"""

import argparse
import ast
import hashlib
import importlib.util
import marshal
import os
import pathlib
import re
import shutil
import subprocess
import sys
import types

SOURCE = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(SOURCE))
from tools.slim import compile_slim  # noqa: E402 - found only now that the path says where

# What the archive's head begins with, in this order.
HEAD_CODE = ("archive_os.py", "archive_loader.py")
PACKAGE = "sysvisor_runc"
MAIN = f"{PACKAGE}.cli.main"
IMPORTED = re.compile(rf"\| +({PACKAGE}[\w.]*)$", re.MULTILINE)

# The head is a marshalled (os, loader, index, groups). An interpreter of another version looks for another file name.
# Ctrl-C shall not end in a traceback; a launch has its own way with it.
# A command is over before there is garbage worth collecting; aio/loop.py switches the collector on again.
PROGRAM = """#!{python} -SI
import _signal
if _signal.getsignal(2) is _signal.default_int_handler:
    _signal.signal(2, _signal.SIG_DFL)
import gc
gc.disable()
import sys
from _frozen_importlib_external import MAGIC_NUMBER
LIBRARY = {library!r}
sys.path.append(LIBRARY)
try:
    with open(f"{{LIBRARY}}/code-{{MAGIC_NUMBER[:2].hex()}}-{digest}", "rb", 0) as file:
        from marshal import loads
        if "--debug" not in sys.argv:
            light, loader, index, groups = loads(file.read({head}))
            exec(light, {{"__name__": "os"}})
            exec(loader)
            sys.meta_path.insert(0, Archive(file.name, index, groups, LIBRARY))
except FileNotFoundError:
    pass
from sysvisor_runc.cli.main import main
main()
"""

# What sysvisor-fs loads.
DAEMON_PARTS = ("sysvisor_fs", "sysvisor_runc/*.py", "sysvisor_runc/kernel", "sysvisor_runc/contract")

# The daemon is started once, and has no archive: its code lies compiled beside the sources.
DAEMON = """#!{python} -SI
import sys
sys.path.append({library!r})
from sysvisor_fs.main import main
main()
"""

Index = dict[str, tuple[int, int, bool]]


def compiled(source: pathlib.Path, name: str) -> types.CodeType:
    """The code of one file; `name` is the path that tracebacks show."""
    return compile_slim(source.read_bytes(), name)


def module_name(path: pathlib.PurePath) -> str:
    """`sysvisor_runc/cli/run.py` → `sysvisor_runc.cli.run`."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


# Each module in a process of its own, which has loaded nothing of ours, yet without an interpreter's start for each.
IMPORT_EACH = """
import posix, sys
sys.path.append(sys.argv[1])
for name in sys.argv[2:]:
    posix.write(2, f"= {name}\\n".encode())
    child = posix.fork()
    if not child:
        __import__(name)
        posix._exit(0)
    if posix.waitpid(child, 0)[1]:
        sys.exit(f"import {name} failed")
"""


def imported(python: str, library: pathlib.Path, modules: list[str]) -> dict[str, list[str]]:
    """Our modules that importing each one brings with it, in the order in which they are complete, without itself."""
    command = [python, "-SIB", "-X", "importtime", "-c", IMPORT_EACH, str(library), *modules]
    done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    told = re.split(r"^= (.*)\n", done.stderr, flags=re.MULTILINE)[1:]
    return {
        sys.intern(module): [sys.intern(name) for name in IMPORTED.findall(text) if name != module]
        for module, text in zip(told[::2], told[1::2], strict=True)
    }


def lazily_imported(trees: list[ast.Module]) -> set[str]:
    """The modules that some function imports when it runs, and the one that the program begins with."""
    found = {MAIN}
    for tree in trees:
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.ImportFrom) and node.module:
                    found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def write_archive(python: str, library: pathlib.Path, shown: str) -> tuple[int, str]:
    """Compile what is below `library` into the archive: the size of its head, and the digest that is in its name.

    `shown` is what tracebacks call the library. The digest keeps a supervisor of before from reading another archive
    than its own when it needs one more module.
    """
    sources = {
        sys.intern(module_name(path.relative_to(library))): path for path in sorted((library / PACKAGE).rglob("*.py"))
    }
    index: Index = {}
    body = b""
    for name, path in sources.items():
        code = marshal.dumps(compiled(path, f"{shown}/{path.relative_to(library)}"))
        index[name] = (len(body), len(code), path.name == "__init__.py")
        body += code
    trees = [ast.parse(path.read_bytes()) for path in sources.values()]
    verbs = {name for name in sources if name.startswith(f"{PACKAGE}.cli.")}
    # What lives long comes without a group, and so does what needs generated messages: their library is only found when
    # the program asks for it, and may be missing here.
    without = tuple(f"{PACKAGE}.{name}" for name in ("aio", "contract", "criu", "cli.checkpoint", "cli.restore"))
    entered = (lazily_imported(trees) | verbs) & {name for name in sources if not name.startswith(without)}
    groups = imported(python, library, sorted(entered))
    # What the program begins with is there in any case.
    first = {MAIN, *groups[MAIN]}
    groups = {name: [one for one in needed if name == MAIN or one not in first] for name, needed in groups.items()}
    groups = {name: needed for name, needed in groups.items() if needed}
    head = _head(index, groups, shown)
    magic = importlib.util.MAGIC_NUMBER[:2].hex()
    digest = hashlib.blake2b(head + body, digest_size=4).hexdigest()
    (library / f"code-{magic}-{digest}").write_bytes(head + body)
    return len(head), digest


def _head(index: Index, groups: dict[str, list[str]], shown: str) -> bytes:
    """The archive's head; offsets in it count from the archive's start, so its own size is settled by repetition."""
    code = [compiled(pathlib.Path(__file__).with_name(name), f"{shown}/{name}") for name in HEAD_CODE]
    size = 0
    while True:
        moved = {name: (offset + size, length, package) for name, (offset, length, package) in index.items()}
        head = marshal.dumps((*code, moved, groups))
        if len(head) == size:
            return head
        size = len(head)


def install(options: argparse.Namespace) -> None:
    """Copy, generate, compile. Replaces the library of an earlier version, but for its archive: it may be in use."""
    destination = pathlib.Path(f"{options.destdir}{options.library}")
    in_use = last_archive(destination)
    shutil.rmtree(destination, ignore_errors=True)
    for package in options.packages:
        shutil.copytree(
            SOURCE / package, destination / package, ignore=shutil.ignore_patterns("__pycache__", "_build.py")
        )
    build = destination / PACKAGE / "_build.py"
    command = [sys.executable, str(SOURCE / "tools/buildinfo.py"), "--tags", options.tags, str(build)]
    subprocess.run(command, check=True, cwd=SOURCE, stdout=subprocess.DEVNULL)
    for name, code in in_use.items():
        (destination / name).write_bytes(code)
    head, digest = write_archive(options.python, destination, options.library)
    text = PROGRAM.format(python=options.python, library=options.library, head=head, digest=digest)
    put_program(pathlib.Path(f"{options.destdir}{options.program}"), text)
    if options.daemon:
        compile_beside(options.python, destination, options.library)
        text = DAEMON.format(python=options.python, library=options.library)
        put_program(pathlib.Path(f"{options.destdir}{options.daemon}"), text)


def last_archive(library: pathlib.Path) -> dict[str, bytes]:
    """The newest archive of an installation, by its name, if there is one."""
    found = sorted(library.glob("code-*"), key=lambda path: path.stat().st_mtime)
    return {path.name: path.read_bytes() for path in found[-1:]}


def put_program(path: pathlib.Path, text: str) -> None:
    """An executable file, in place of an earlier one at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.new")
    partial.write_text(text)
    partial.chmod(0o755)
    os.replace(partial, path)


def compile_beside(python: str, library: pathlib.Path, shown: str) -> None:
    """Byte code in __pycache__, believed whatever time the sources have; `shown` is what tracebacks call it."""
    command = [python, "-m", "compileall", "-q", "-s", str(library), "-p", shown]
    wanted = [path for part in DAEMON_PARTS for path in sorted(library.glob(part))]
    subprocess.run([*command, "--invalidation-mode", "unchecked-hash", *map(str, wanted)], check=True)


def main() -> int:
    """Read the command line and install."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default="/usr/bin/python3", help="interpreter that the program names")
    parser.add_argument("--library", required=True, help="directory of the library")
    parser.add_argument("--program", required=True, help="path of the program")
    parser.add_argument("--daemon", default="", help="path of sysvisor-fs, where it is installed too")
    parser.add_argument("--destdir", default="", help="staging root in front of both")
    parser.add_argument("--tags", default="", help="build tags")
    parser.add_argument("packages", nargs="+", help="packages to install")
    install(parser.parse_args())
    return 0


if __name__ == "__main__":
    sys.exit(main())

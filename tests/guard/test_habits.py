"""Habits of the code that no linter knows: where a process may end, what tests say of themselves, what is not named."""

import ast
import re
import shutil
import subprocess

import pytest

from tests.support import source

TEXTS = (
    "*.py",
    "*.md",
    "*.toml",
    "*.service",
    "*.socket",
    "Makefile",
    "bin/*",
    "tools/*",
    "contrib/**",
    ".ci/*",
    "docs/**",
)


def tracked() -> list[str]:
    """The texts of the project that git knows, or would know."""
    if not shutil.which("git"):
        pytest.skip("no git; to force it: apt-get install git")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *TEXTS],
        cwd=source.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip(f"not a git checkout ({listed.stderr.strip()}); to force it: run in a clone")
    return [name for name in listed.stdout.split("\0") if name and (source.ROOT / name).is_file()]


def test_no_place_of_one_machine_is_named() -> None:
    """The project speaks of itself: no path of a build machine, no host of a package registry."""
    # Spelled so that this file does not contain them.
    forbidden = re.compile(
        "|".join(("/wor" + "k/", "/far" + "m/", "py" + "pi\\.org", "pythonhos" + "ted", "snapshot\\.deb" + "ian"))
    )
    found = [
        f"{name}:{number}: {line.strip()}"
        for name in tracked()
        for number, line in enumerate((source.ROOT / name).read_text().splitlines(), 1)
        if forbidden.search(line)
    ]
    assert found == []


def test_library_code_never_exits_or_prints() -> None:
    """Only the command line ends the process or writes to standard output; the child ends by execve or _exit."""
    allowed = ("sysvisor_runc.cli.", "sysvisor_runc.aio.", "sysvisor_fs.")
    found = [
        f"{module}:{node.lineno}"
        for module in source.modules()
        if not module.name.startswith(allowed)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"sys.exit", "print", "exit", "quit"}
    ]
    assert found == []


def test_nothing_is_copied_by_execvp_or_shell() -> None:
    """No `os.system`, no `shell=True`, and no execvp: with imports sealed it would load a module from the rootfs."""
    found = [
        f"{module}:{node.lineno}"
        for module in source.modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and (
            ast.unparse(node.func) in {"os.system", "os.popen", "os.execvp", "os.execvpe", "os.execlp"}
            or any(keyword.arg == "shell" for keyword in node.keywords)
        )
    ]
    assert found == []


def test_users_are_never_looked_up_on_the_host() -> None:
    """`pwd` and `grp` would load NSS libraries, from a rootfs if called too late."""
    found = [
        f"{module}:{item.line}"
        for module in source.modules()
        for item in source.imports(module)
        if item.target in {"pwd", "grp"} and ".child." in module.name
    ]
    assert found == []


def test_public_functions_explain_themselves() -> None:
    """Most public functions and classes have a docstring; the others are named so that none is needed."""
    documented = total = 0
    for module in source.modules():
        for node in module.tree.body:
            if isinstance(node, source.Definition) and not node.name.startswith("_"):
                total += 1
                documented += ast.get_docstring(node) is not None
    assert documented / total >= 0.7, f"{documented} of {total}"


def test_tests_say_what_they_prove() -> None:
    """Every test function has a docstring."""
    found = [
        f"{path.relative_to(source.ROOT)}:{node.lineno}: {node.name}"
        for path in sorted((source.ROOT / "tests").rglob("test_*.py"))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert found == []

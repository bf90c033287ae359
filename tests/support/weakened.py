"""A copy of the library with one defence taken out, to show that a test would notice: never a switch in the product."""

import pathlib
import shutil
from collections.abc import Callable

from tests.support.runtime import SOURCE, Runtime

# weaken(runtime, "launch/locked.py", "text", "instead"): a runtime like the given one, on the patched copy.
Weaken = Callable[..., Runtime]


def weakened(runtime: Runtime, directory: pathlib.Path, module: str, *edits: str) -> Runtime:
    """A runtime on a copy of the library in `directory` where each text of `module` is replaced by the one after it."""
    library = directory / "library"
    if not library.exists():
        ignored = shutil.ignore_patterns("__pycache__")
        for name in ("sysvisor_runc", "bin"):
            shutil.copytree(SOURCE / name, library / name, ignore=ignored)
    file = library / "sysvisor_runc" / module
    text = file.read_text()
    for old, new in zip(edits[::2], edits[1::2], strict=True):
        assert text.count(old) == 1, f"{module} has changed: {text.count(old)} times {old!r}"
        text = text.replace(old, new)
    file.write_text(text)
    weak = Runtime(directory, *runtime.flags, program=library / "bin/sysvisor-runc")
    weak.root = runtime.root
    weak.token = runtime.token
    weak._numbers = runtime._numbers
    return weak

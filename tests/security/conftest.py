"""What the attacks need: weakened copies of the library, mounts of the host, programs for the inside."""

import pathlib
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support.runtime import Runtime
from tests.support.weakened import Weaken, weakened


@pytest.fixture
def weaken(workplace: pathlib.Path) -> Weaken:
    """Makes a runtime whose library lacks a defence; see support.weakened."""
    directory = workplace / "weak"
    directory.mkdir()

    def make(runtime: Runtime, module: str, *edits: str) -> Runtime:
        return weakened(runtime, directory, module, *edits)

    return make


@pytest.fixture
def mounted() -> Iterator[Callable[..., pathlib.Path]]:
    """Mounts a file system on the host for the length of a test: `mounted(path, "tmpfs", "nosuid")`."""
    made: list[pathlib.Path] = []

    def mount(path: pathlib.Path, kind: str, options: str, source: str = "none") -> pathlib.Path:
        path.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", kind, "-o", options, source, path], check=True)
        made.append(path)
        return path

    yield mount
    for path in reversed(made):
        subprocess.run(["umount", "-l", path], check=False)

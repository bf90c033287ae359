"""What the attacks need: weakened copies of the library, mounts of the host, programs for the inside."""

import pathlib
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support.bundle import Bundle
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


@pytest.fixture(scope="session")
def attacker_program(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """`programs/attacker.c`, and `loader.c` beside it, compiled for any root file system."""
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler; to force it: apt-get install gcc libc6-dev")
    program = tmp_path_factory.mktemp("attacker") / "attacker"
    sources = pathlib.Path(__file__).with_name("programs")
    subprocess.run(["gcc", "-O2", "-static", "-o", program, sources / "attacker.c"], check=True)
    address = "-Wl,-Ttext-segment=0x70000000"  # beside whatever program it stands in as dynamic loader for
    bare = ["-O1", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-pic", "-no-pie", address]
    loader = program.with_name("loader")
    subprocess.run(["gcc", *bare, "-o", loader, sources / "loader.c"], check=True)
    return program


@pytest.fixture
def hostile(new_bundle: Callable[..., Bundle], attacker_program: pathlib.Path) -> Callable[..., Bundle]:
    """Makes bundles whose rootfs holds the attacker, also in the place of every dynamic loader."""

    def make(*args: str) -> Bundle:
        bundle = new_bundle(*args)
        for place in ("attacker", "lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1"):
            path = bundle.rootfs / place
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(attacker_program.with_name("attacker" if place == "attacker" else "loader"), path)
        return bundle

    return make

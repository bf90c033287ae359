"""Fixtures that every test may ask for, and which tests run where.

Tests in `integration/`, `security/` and `system/` need root: they make real namespaces, cgroups and mounts.
"""

import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support import debian, guests, leaks
from tests.support.bundle import Bundle, make_bundle, make_rootfs
from tests.support.runtime import Runtime
from tools.own_daemon import OwnDaemon

ROOT_ONLY = {"integration", "security", "system"}
# What is cheap and tells most comes first.
ORDER = ("guard", "unit", "golden", "kernel", "integration", "security", "system")


def _folder(item: pytest.Item) -> str:
    """The folder below tests/ that an item comes from."""
    parts = item.path.parts
    return parts[parts.index("tests") + 1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _folder(item) in ROOT_ONLY:
            item.add_marker("root")
        if item.get_closest_marker("debian") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(debian.PATIENCE))
        if os.geteuid() != 0 and item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root; to force it: sudo make test"))
    # Guests keep all processors busy: no other test runs beside them.
    items.sort(key=lambda item: (_rank(item), item.get_closest_marker("guest") is not None))


def _rank(item: pytest.Item) -> int:
    folder = _folder(item)
    return ORDER.index(folder) if folder in ORDER else len(ORDER)


@pytest.fixture(scope="session", autouse=True)
def own_sysvisor_fs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Launches without `--no-sysvisor-fs` find a daemon of this session's own, which ends with it."""
    with OwnDaemon(tmp_path_factory.mktemp("sysvisor-fs")):
        yield


@pytest.fixture(scope="session", autouse=True)
def debians(request: pytest.FixtureRequest) -> Iterator[None]:
    """The Debians that tests of this session name by the marker `debian` are being fetched from its beginning on."""
    with debian.fetched_ahead(request.session.items):
        yield


@pytest.fixture(scope="session")
def rootfs_template(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A busybox root file system to copy from."""
    try:
        return make_rootfs(tmp_path_factory.mktemp("busybox") / "rootfs")
    except FileNotFoundError as error:
        pytest.skip(f"{error}; to force it: apt-get install busybox-static")


@pytest.fixture
def workplace(tmp_path: pathlib.Path) -> pathlib.Path:
    """A directory that a container's mapped root can walk through: pytest makes its own 0700."""
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    return tmp_path


@pytest.fixture
def new_bundle(workplace: pathlib.Path, rootfs_template: pathlib.Path) -> Iterator[Callable[..., Bundle]]:
    """Makes bundles: `new_bundle()` or `new_bundle("/bin/sleep", "100")`; they go when the test ends."""
    made: list[Bundle] = []

    def make(*args: str) -> Bundle:
        bundle = make_bundle(workplace / f"bundle{len(made)}", rootfs_template, args or ("/bin/true",))
        made.append(bundle)
        return bundle

    yield make
    for bundle in made:
        shutil.rmtree(bundle.rootfs, ignore_errors=True)


@pytest.fixture
def bundle(new_bundle: Callable[..., Bundle]) -> Bundle:
    """One busybox bundle whose process is `/bin/true`."""
    return new_bundle()


def _checked(runtime: Runtime, request: pytest.FixtureRequest) -> Iterator[Runtime]:
    """Hand out the runtime; afterwards delete its containers and fail the test if anything is left behind."""
    yield runtime
    runtime.clean()
    if request.node.get_closest_marker("leaks_allowed") is None:
        assert leaks.find(runtime) == []


@pytest.fixture
def runtime(workplace: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[Runtime]:
    """`sysvisor-runc` making system containers, with a state root of its own and a leak check at the end."""
    yield from _checked(Runtime(workplace, "--no-sysvisor-fs"), request)


@pytest.fixture
def plain_runtime(workplace: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[Runtime]:
    """`sysvisor-runc --no-syscont`: a plain OCI runtime, with a state root of its own and a leak check at the end."""
    yield from _checked(Runtime(workplace, "--no-syscont", "--no-sysvisor-fs"), request)


@pytest.fixture(params=["syscont", "plain"])
def any_runtime(request: pytest.FixtureRequest) -> Runtime:
    """Both modes, one after the other."""
    runtime: Runtime = request.getfixturevalue("runtime" if request.param == "syscont" else "plain_runtime")
    return runtime


@pytest.fixture(scope="session")
def booted_guests(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[guests.Guests]:
    """The guests of all tests of this session that name one."""
    booted = guests.Guests(guests.named_by(request.session.items), tmp_path_factory.mktemp("guests"))
    yield booted
    booted.close()


@pytest.fixture
def said(booted_guests: guests.Guests, request: pytest.FixtureRequest) -> Callable[[], str]:
    """Waits for the guest that the test names by its marker: what it has printed, which tells of passed tests."""
    return lambda: booted_guests.said(request.node.nodeid)


@pytest.fixture
def interpreter() -> Callable[[str], str]:
    """Runs a script in a fresh isolated interpreter as the command does (`python3 -SI`); gives its output."""

    def run(script: str) -> str:
        done = subprocess.run(["/usr/bin/python3", "-SI", "-c", script], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run

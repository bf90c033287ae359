"""What a command costs before it does anything: the modules that a fresh interpreter loads for each verb.

The lists come from real commands under `-X importtime`, so that imports inside functions count as well.
"""

import importlib.machinery
import importlib.util
import marshal
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator

import pytest

from tests.support.bundle import make_bundle
from tests.support.fs_own import OwnDaemon
from tests.support.runtime import SOURCE, Runtime
from tools.slim import compile_slim

PYTHON = "/usr/bin/python3"
# Bytes of code that an installed `run` may load in plain mode, beyond what the bare interpreter does. Reading and
# running a kilobyte costs about 10 microseconds (docs/performance.md).
RUN_BUDGET = 400_000
# The same of a system container with sysvisor-fs.
SERVED_BUDGET = 600_000
# Packages that are never loaded by a short command; the C modules behind some of them (`_json`, `_ctypes`) are free.
HEAVY = frozenset({
    "argparse", "asyncio", "collections", "contextlib", "ctypes", "dataclasses", "enum", "functools", "grpc", "inspect",
    "json", "logging", "msgspec", "pathlib", "prctl", "pyroute2", "re", "selectors", "shutil", "signal", "socket",
    "subprocess", "tempfile", "threading", "traceback", "typing", "urllib", "uvloop", "warnings",
})  # fmt: skip
LINE = re.compile(r"^import time:\s+\d+ \|\s+\d+ \| \s*(\S+)$", re.MULTILINE)
VERBS = ("create", "state", "list", "start", "pause", "resume", "ps", "exec", "update", "events", "kill", "delete",
         "run")  # fmt: skip

Loaded = dict[str, list[str]]


def loaded(*command: str) -> list[str]:
    """The modules that `python3 -SI COMMAND` imports, in order."""
    # Not through a pipe: what a container inherits stays open as long as it lives.
    with tempfile.TemporaryFile("w+") as stderr:
        done = subprocess.run(
            [PYTHON, "-SI", "-X", "importtime", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            timeout=60,
        )
        stderr.seek(0)
        said = stderr.read()
    assert done.returncode == 0, said[-2000:]
    return LINE.findall(said)


def pyc_size(module: str) -> int:
    """Bytes of compiled code read for this module once installed; 0 for builtin, frozen and C modules."""
    if module in sys.builtin_module_names or importlib.machinery.FrozenImporter.find_spec(module):
        return 0
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return 0
    with open(spec.origin, "rb") as file:
        return len(marshal.dumps(compile_slim(file.read(), module)))


@pytest.fixture(scope="module")
def bare() -> frozenset[str]:
    """What an interpreter loads to do nothing."""
    return frozenset(loaded("-c", "pass"))


@pytest.fixture(scope="module")
def lifecycle(
    rootfs_template: pathlib.Path, tmp_path_factory: pytest.TempPathFactory, bare: frozenset[str]
) -> types.MappingProxyType[str, list[str]]:
    """The modules that each verb loads over one container's life in plain mode, beyond the bare interpreter's."""
    directory = tmp_path_factory.mktemp("startup")
    bundle = make_bundle(directory / "bundle", rootfs_template, ("/bin/sleep", "1000"))
    once = make_bundle(directory / "once", rootfs_template)
    runtime = Runtime(directory, "--no-syscont", "--no-sysvisor-fs")
    name = runtime.id()
    found: Loaded = {}

    def verb(verb: str, *arguments: str) -> None:
        found[verb] = [module for module in loaded(*runtime.argv(verb, *arguments)) if module not in bare]

    try:
        verb("create", "--bundle", str(bundle.path), name)
        verb("state", name)
        verb("list")
        verb("start", name)
        verb("pause", name)
        verb("resume", name)
        verb("ps", name)
        verb("exec", name, "/bin/true")
        verb("update", "--pids-limit", "100", name)
        verb("events", "--stats", name)
        verb("kill", name, "KILL")
        runtime.wait_status(name, "stopped")
        verb("delete", name)
        verb("run", "--bundle", str(once.path), runtime.id())
    finally:
        runtime.clean()
    return types.MappingProxyType(found)


@pytest.mark.root
@pytest.mark.parametrize("verb", VERBS)
def test_short_commands_load_nothing_heavy(verb: str, lifecycle: Loaded) -> None:
    """No short command imports a package that costs a millisecond or more."""
    assert {module for module in lifecycle[verb] if module.split(".")[0] in HEAVY} == set()


@pytest.mark.root
def test_run_stays_small(lifecycle: Loaded) -> None:
    """`run` in plain mode loads no more code than its budget."""
    sizes = {module: pyc_size(module) for module in lifecycle["run"]}
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:10]
    assert sum(sizes.values()) <= RUN_BUDGET, f"{sum(sizes.values())} bytes; the largest: {largest}"


@pytest.mark.root
def test_state_loads_a_fraction_of_run(lifecycle: Loaded) -> None:
    """A verb loads its own modules only: `state` needs far less than `run`."""
    assert sum(map(pyc_size, lifecycle["state"])) < 0.5 * sum(map(pyc_size, lifecycle["run"]))


def test_help_needs_no_library(bare: frozenset[str], tmp_path: pathlib.Path) -> None:
    """Even help is printed without a heavy import."""
    runtime = Runtime(tmp_path)
    modules = set(loaded(*runtime.argv("--help"))) - bare
    assert {module for module in modules if module.split(".")[0] in HEAVY} == set()


# The program, but that it must not fork anybody who loads gRPC for it.
ALONE = f"""
import sys
sys.path.append({str(SOURCE)!r})
from sysvisor_runc.launch import fslink
def refuse(serve):
    sys.exit("an agent was forked")
fslink._fork_agent = refuse
from sysvisor_runc.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def served(
    rootfs_template: pathlib.Path, tmp_path_factory: pytest.TempPathFactory, bare: frozenset[str]
) -> Iterator[Loaded]:
    """The modules that commands load for system containers with sysvisor-fs: without a supervisor, and with one."""
    directory = tmp_path_factory.mktemp("served")
    for name in ("cold", "warm"):
        (directory / name).mkdir()
    cold, warm = Runtime(directory / "cold"), Runtime(directory / "warm")
    stays = make_bundle(directory / "stays", rootfs_template, ("/bin/sleep", "1000"))
    once = make_bundle(directory / "once", rootfs_template)
    daemon = OwnDaemon(directory)
    found: Loaded = {}

    def verb(title: str, *command: str) -> None:
        found[title] = [module for module in loaded(*command) if module not in bare]

    with pytest.MonkeyPatch.context() as patch:
        for variable, value in daemon.environment().items():
            patch.setenv(variable, value)
        try:
            warm("run", "--detach", "--bundle", stays.path, warm.id())
            alone = ("-c", ALONE, *cold.argv()[1:])
            verb("run, no supervisor", *alone, "run", "--bundle", str(once.path), cold.id())
            alone = ("-c", ALONE, *warm.argv()[1:])
            verb("run", *alone, "run", "--bundle", str(once.path), warm.id())
            name = warm.id()
            verb("create", *alone, "create", "--bundle", str(stays.path), name)
            verb("start", *alone, "start", name)
            warm("kill", name, "KILL")
            warm.wait_status(name, "stopped")
            verb("delete", *alone, "delete", name)
            yield found
        finally:
            warm.clean()
            cold.clean()
            daemon.stop()


@pytest.mark.root
@pytest.mark.parametrize("verb", ["run, no supervisor", "run", "create", "start", "delete"])
def test_sysvisor_fs_costs_no_command_grpc(verb: str, served: Loaded) -> None:
    """A supervisor makes the calls, or they need no gRPC: no command loads it or a loop, or forks somebody who does."""
    assert {module for module in served[verb] if module.split(".")[0] in HEAVY} == set()


@pytest.mark.root
@pytest.mark.parametrize("who", ["run, no supervisor", "run"])
def test_run_with_sysvisor_fs_stays_small(who: str, served: Loaded) -> None:
    """What is ours to load for a system container with sysvisor-fs has a budget as well."""
    sizes = {module: pyc_size(module) for module in served[who]}
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:10]
    assert sum(sizes.values()) <= SERVED_BUDGET, f"{sum(sizes.values())} bytes; the largest: {largest}"


# Interrupts itself when the first module is imported that is not built in.
INTERRUPTED = """
import sys, _signal, posix
class Interrupt:
    def find_spec(name, path=None, target=None):
        if name not in sys.builtin_module_names:
            posix.kill(posix.getpid(), _signal.SIGINT)
sys.meta_path.insert(0, Interrupt)
exec(compile(sys.stdin.read(), "entry", "exec"))
"""


def test_an_interrupt_leaves_no_traceback() -> None:
    """From before the entry script imports anything, which is most of its time, Ctrl-C ends it without a word."""
    script = (SOURCE / "bin/sysvisor-runc").read_text()
    done = subprocess.run([PYTHON, "-SI", "-c", INTERRUPTED], input=script, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")

"""With too little of something a container starts or is refused in words, never hangs; and pids that are not ours."""

import json
import os
import pathlib
import resource
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support import leaks
from tests.support.bundle import Bundle
from tests.support.runtime import Result, Runtime


def check_told(result: Result, *words: str) -> None:
    """One line of explanation with one of the words in it, if the command failed."""
    if result.returncode == 0:
        return
    lines = [line for line in result.stderr.splitlines() if "warning" not in line]
    assert len(lines) == 1, repr(result)
    assert any(word in lines[0] for word in words), repr(result)
    assert "Traceback" not in lines[0], repr(result)
    assert "internal error" not in lines[0], repr(result)
    assert "unexpected failure" not in lines[0], repr(result)


def limited(kind: int, soft: int) -> Callable[[], None]:
    """For Popen: lowers a limit of the command."""

    def lower() -> None:
        resource.setrlimit(kind, (soft, soft))

    return lower


@pytest.mark.parametrize("number", [5, 8, 12, 16, 20, 24, 28, 32, 40])
def test_few_descriptors(any_runtime: Runtime, bundle: Bundle, number: int) -> None:
    """Wherever they run out, it is told, and undone."""
    runtime, name = any_runtime, any_runtime.id()
    lower = limited(resource.RLIMIT_NOFILE, number)
    for command in ("run", "create"):
        result = runtime(command, "--bundle", bundle.path, name, check=False, preexec_fn=lower)
        check_told(result, "too many open files")
        if command == "create" and result.returncode == 0:
            runtime("delete", "--force", name)
        assert leaks.find(runtime) == []
    runtime("create", "--bundle", bundle.path, name)
    for verb in (["exec", name, "/bin/true"], ["state", name], ["list"], ["start", name], ["delete", "-f", name]):
        check_told(runtime(*verb, check=False, preexec_fn=lower), "too many open files")


@pytest.fixture
def small_root(any_runtime: Runtime) -> Iterator[pathlib.Path]:
    """A file that takes all the room in the state root, once it is written."""
    any_runtime.root.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700,size=256k", "tmpfs", any_runtime.root], check=True)
    yield any_runtime.root / "@filler"
    any_runtime.clean()
    subprocess.run(["umount", any_runtime.root], check=True)


def test_started_with_a_full_disk(any_runtime: Runtime, bundle: Bundle, small_root: pathlib.Path) -> None:
    """Once the program runs, that this cannot be written down does not make its start a failure."""
    runtime, name = any_runtime, any_runtime.id()
    told = runtime.directory / "told"
    bundle.config["hooks"] = {"poststart": [{"path": "/bin/touch", "args": ["touch", str(told)]}]}
    runtime("create", "--bundle", bundle.run("/bin/sleep", "1000").path, name)
    with small_root.open("wb") as file, pytest.raises(OSError, match="No space"):
        file.write(bytes(1 << 20))
    result = runtime("start", name)
    assert "warning: cannot write the state" in result.stderr
    assert runtime.state(name)["status"] == "running"
    assert told.exists()
    runtime("delete", "--force", name)


@pytest.mark.parametrize("megabytes", [24, 28, 32, 40, 60])
def test_little_address_space(any_runtime: Runtime, bundle: Bundle, megabytes: int) -> None:
    """Out of memory, wherever it happens."""
    runtime = any_runtime
    lower = limited(resource.RLIMIT_AS, megabytes << 20)
    # With less the interpreter itself, its C library or its modules do not load.
    probe = subprocess.run(["/usr/bin/python3", "-SI", "-c", ""], preexec_fn=lower, stderr=subprocess.DEVNULL)
    if probe.returncode:
        pytest.skip("the interpreter does not start with so little; to force it: a smaller interpreter")
    result = runtime("run", "--bundle", bundle.path, runtime.id(), check=False, preexec_fn=lower)
    check_told(result, "out of memory", "cannot allocate memory", "failed to map segment", "error while loading")
    assert leaks.find(runtime) == []


def test_few_processes(any_runtime: Runtime, bundle: Bundle) -> None:
    """A container that may have one process has it; what would be the second is refused in words."""
    runtime, name = any_runtime, any_runtime.id()
    bundle.linux["resources"] = {"pids": {"limit": 1}}
    bundle.run("/bin/sleep", "100")
    runtime("run", "-d", "--bundle", bundle.path, name)
    result = runtime("exec", name, "/bin/true", check=False)
    assert result.returncode == 255, repr(result)
    check_told(result, "resource temporarily unavailable")
    assert runtime.state(name)["status"] == "running"
    runtime("delete", "--force", name)
    bundle.config["hooks"] = {"createContainer": [{"path": "/bin/true"}]}
    result = runtime("run", "--bundle", bundle.save().path, name, check=False)
    check_told(result, "resource temporarily unavailable")
    assert leaks.find(runtime) == []


@pytest.fixture
def cramped(runtime: Runtime) -> Iterator[pathlib.Path]:
    """A cgroup of the caller's that takes no further process than the caller."""
    if not pathlib.Path("/sys/fs/cgroup/pids").is_dir():
        pytest.skip("no v1 pids hierarchy; to force it: boot with systemd.unified_cgroup_hierarchy=0")
    path = pathlib.Path("/sys/fs/cgroup/pids") / f"caller-{runtime.token}"
    path.mkdir()
    (path / "pids.max").write_text("1")
    yield path
    path.rmdir()


def test_a_caller_without_processes(runtime: Runtime, bundle: Bundle, cramped: pathlib.Path) -> None:
    """The command itself cannot make the container's first process."""

    def move() -> None:
        (cramped / "cgroup.procs").write_text(str(os.getpid()))

    result = runtime("run", "--bundle", bundle.path, runtime.id(), check=False, preexec_fn=move)
    assert result.returncode == 1, repr(result)
    check_told(result, "resource temporarily unavailable")
    cramped.joinpath("pids.max").write_text("max")
    assert [line for line in leaks.find(runtime) if str(cramped) not in line] == []


@pytest.mark.parametrize("kibibytes", [0, 4, 64, 256, 512, 1024, 2048, 4096, 8192])
def test_little_memory(any_runtime: Runtime, bundle: Bundle, kibibytes: int) -> None:
    """The container starts or is told to have been killed for want of memory; either way it is over soon."""
    runtime = any_runtime
    bundle.linux["resources"] = {"memory": {"limit": kibibytes << 10}}
    bundle.save()
    result = runtime("run", "--bundle", bundle.path, runtime.id(), check=False, timeout=60)
    if result.returncode != 137:  # the program itself was killed
        check_told(result, "memory")
    assert leaks.find(runtime) == []


def test_few_namespaces(any_runtime: Runtime, bundle: Bundle) -> None:
    """A host that allows no further namespace of a kind: the knob is named."""
    runtime = any_runtime
    script = (
        'unshare -U --map-root-user --keep-caps sh -ec \'echo 0 >/proc/sys/user/max_uts_namespaces; exec "$@"\' sh "$@"'
    )
    argv = ["sh", "-c", script, "sh", *runtime.argv("run", "--bundle", str(bundle.path), runtime.id())]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert leaks.find(runtime) == []


# ---- pids that belong to somebody else by now


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with any container."""
    process = subprocess.Popen(["/bin/sleep", "1000"])
    yield process
    process.kill()
    process.wait()


def forge(runtime: Runtime, name: str, **fields: object) -> None:
    path = runtime.root / name / "state.json"
    record = json.loads(path.read_text())
    record.update(fields)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize("start", ["old", "zero"])
@pytest.mark.parametrize("own_pids", [True, False])
def test_a_reused_pid(
    plain_runtime: Runtime, bundle: Bundle, stranger: subprocess.Popen[bytes], start: str, own_pids: bool
) -> None:
    """The recorded pid is another process's: to every command the container has stopped, and nobody is hit."""
    runtime, name = plain_runtime, plain_runtime.id()
    if not own_pids:
        bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != "pid"]
    runtime("run", "-d", "--bundle", bundle.run("/bin/sleep", "1000").path, name)
    record = json.loads((runtime.root / name / "state.json").read_text())
    init = record["initPid"]
    fields = {"initPid": stranger.pid} | ({"initStart": 0} if start == "zero" else {})
    forge(runtime, name, **fields)
    assert runtime.state(name)["status"] == "stopped"
    runtime.fails("kill", name, "TERM")
    runtime.fails("exec", name, "/bin/true")
    runtime.fails("pause", name)
    runtime.fails("start", name)
    assert stranger.poll() is None
    forge(runtime, name, initPid=init, initStart=record["initStart"])
    assert runtime.state(name)["status"] == "running"
    forge(runtime, name, **fields)
    # Whoever is in its cgroup is the container's, though.
    runtime("delete", "--force", name)
    assert stranger.poll() is None
    assert leaks.find(runtime) == []


def test_a_forged_note(any_runtime: Runtime, bundle: Bundle, stranger: subprocess.Popen[bytes]) -> None:
    """Nor does `delete --force` of a launch that was killed hit whoever has the pid of its init now."""
    runtime, name = any_runtime, any_runtime.id()
    fault = {**os.environ, "SYSVISOR_RUNC_FAULT": "kill:go"}
    assert runtime("create", "--bundle", bundle.path, name, check=False, env=fault).returncode == -9
    notes = runtime.root / name / "launching"
    lines = notes.read_text().splitlines()
    (init,) = [line for line in lines if line.startswith("init ")]
    start = init.split()[2]
    notes.write_text("".join(f"{line}\n" for line in lines if line != init) + f"init {stranger.pid} {start}1\n")
    runtime("delete", "--force", name)
    assert stranger.poll() is None
    assert leaks.find(runtime) == []

"""CVE-2024-21626, CVE-2016-9962: no descriptor of the host's leads out of a container."""

import os
import pathlib
import stat
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support.bundle import Bundle
from tests.support.runtime import Runtime, descriptors
from tests.support.weakened import Weaken


@pytest.fixture
def host_directory(workplace: pathlib.Path) -> Iterator[int]:
    """A directory of the host that the caller of the runtime has open, and passes on by mistake."""
    (workplace / "secrets").mkdir()
    fd = os.open(workplace / "secrets", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(fd, True)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("kind", ["runtime", "plain_runtime"])
def test_programs_have_stdio_and_nothing_else(
    request: pytest.FixtureRequest, bundle: Bundle, workplace: pathlib.Path, host_directory: int, kind: str
) -> None:
    """create, start, run and exec, called with a directory of the host open."""
    runtime: Runtime = request.getfixturevalue(kind)
    bundle.run("/bin/sleep", "100")
    name = runtime.id()
    runtime("create", "--bundle", bundle.path, name, pass_fds=[host_directory])
    pid = runtime.state(name)["pid"]
    waiting = [os.stat(f"/proc/{pid}/fd/{fd}") for fd in descriptors(pid)]
    # The one directory is the container's own working directory.
    assert all(os.path.samestat(s, os.stat(f"/proc/{pid}/cwd")) for s in waiting if stat.S_ISDIR(s.st_mode))
    runtime("start", name)
    assert set(descriptors(pid)) == {0, 1, 2}
    file = workplace / "pid"
    args = ("exec", "--detach", "--pid-file", file, name, "/bin/sleep", "100")
    runtime(*args, pass_fds=[host_directory])
    assert set(descriptors(int(file.read_text()))) == {0, 1, 2}
    other = runtime.id()
    runtime("run", "--detach", "--bundle", bundle.path, other, pass_fds=[host_directory])
    assert set(descriptors(runtime.state(other)["pid"])) == {0, 1, 2}


@pytest.mark.parametrize("count", [1, 40])
def test_preserved_ones_and_no_more(
    plain_runtime: Runtime, bundle: Bundle, workplace: pathlib.Path, count: int
) -> None:
    """--preserve-fds hands on what was asked for, and where the caller has less, none of ours in its place."""
    (workplace / "given").touch()
    bundle.run("/bin/sleep", "100")
    name = plain_runtime.id()
    command = plain_runtime.argv("run", "--detach", "--preserve-fds", str(count), "--bundle", bundle.path, name)
    with open(workplace / "output", "w") as output:
        shell = ["/bin/sh", "-c", f'exec 3<"{workplace}/given"; exec "$@"', "sh", *command]
        subprocess.run(shell, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=True)
    assert set(descriptors(plain_runtime.state(name)["pid"])) == {0, 1, 2, 3}


@pytest.mark.parametrize("number", range(3, 16))
def test_working_directory_is_no_descriptor(
    plain_runtime: Runtime, bundle: Bundle, host_directory: int, number: int
) -> None:
    """process.cwd of /proc/self/fd/N is refused, whatever is open there while the container is made."""
    bundle.process["cwd"] = f"/proc/self/fd/{number}"
    bundle.sh("ls ..; pwd")
    result = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id(), pass_fds=[host_directory])
    assert result.stdout == ""


def test_working_directory_of_exec(
    plain_runtime: Runtime, new_bundle: Callable[..., Bundle], host_directory: int
) -> None:
    """Nor does exec take one, not even of a descriptor that is handed on."""
    name = plain_runtime.id()
    plain_runtime("run", "--detach", "--bundle", new_bundle("/bin/sleep", "100").path, name)
    for number in range(3, 16):
        for extra in ((), ("--preserve-fds", "20")):
            args = ("exec", *extra, "--cwd", f"/proc/self/fd/{number}", name, "/bin/pwd")
            assert plain_runtime.fails(*args, pass_fds=[host_directory]).stdout == ""


def test_without_the_check_a_kept_directory_leads_out(
    plain_runtime: Runtime, bundle: Bundle, host_directory: int, weaken: Weaken
) -> None:
    """The same on a copy that follows magic links, for a directory that was handed on."""
    weak = weaken(plain_runtime, "child/process.py", "0, RESOLVE_NO_MAGICLINKS)", "0, 0)")
    bundle.process["cwd"] = f"/proc/self/fd/{host_directory}"
    bundle.sh("ls ..")
    args = ("run", "--preserve-fds", str(host_directory), "--bundle", bundle.path, weak.id())
    assert "secrets" in weak(*args, pass_fds=[host_directory]).stdout

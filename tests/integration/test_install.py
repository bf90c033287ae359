"""`make install`: what it puts where, that it works there, and that nothing stays after `make uninstall`."""

import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.support import criu, leaks
from tests.support.bundle import Bundle
from tests.support.runtime import SOURCE, Runtime, wait_until
from tests.support.terminal import on_terminal


def make(target: str, *variables: str) -> str:
    """Run make in the source tree; its output."""
    done = subprocess.run(["make", target, *variables], cwd=SOURCE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """An installation below a prefix of its own."""
    path = tmp_path_factory.mktemp("prefix")
    make("install", f"PREFIX={path}")
    yield path
    make("uninstall", f"PREFIX={path}")
    assert [entry for entry in path.rglob("*") if not entry.is_dir()] == []


def files(top: pathlib.Path) -> set[str]:
    return {str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()}


@pytest.fixture
def installed(prefix: pathlib.Path, workplace: pathlib.Path) -> Iterator[Runtime]:
    """The installed program, with a leak check at the end."""
    runtime = Runtime(workplace, "--no-syscont", "--no-sysvisor-fs", program=prefix / "sbin/sysvisor-runc")
    yield runtime
    runtime.clean()
    assert leaks.find(runtime) == []


def test_everything_has_its_place(prefix: pathlib.Path) -> None:
    """Program, library, man pages, completions and units lie where a distribution looks for them."""
    found = files(prefix)
    assert {
        "sbin/sysvisor-runc",
        "lib/sysvisor-runc/sysvisor_runc/cli/main.py",
        "share/man/man8/sysvisor-runc.8",
        "share/man/man8/sysvisor-runc-run.8",
        "share/bash-completion/completions/sysvisor-runc",
        "share/zsh/site-functions/_sysvisor-runc",
        "share/fish/vendor_completions.d/sysvisor-runc.fish",
        "lib/systemd/system/sysvisor@.service",
        "lib/systemd/system/sysvisor-notify@.service",
        "lib/systemd/system/sysvisor-runc-supervisor.service",
        "lib/systemd/system/sysvisor-runc-supervisor.socket",
        "lib/systemd/system/sysvisor-fs.service",
    } <= found
    assert os.access(prefix / "sbin/sysvisor-runc", os.X_OK)


def test_installed_program_runs_a_container(installed: Runtime, bundle: Bundle) -> None:
    """A container runs by the installed program from any directory."""
    result = installed("run", "--bundle", bundle.path, installed.id(), cwd="/")
    assert result.returncode == 0


@pytest.mark.debian("criu")
def test_installed_program_checkpoints(installed: Runtime, bundle: Bundle, tmp_path: pathlib.Path) -> None:
    """What the installed program brings along for checkpoint and restore comes with the libraries that it needs."""
    installed.flags = ("--criu", criu.program(tmp_path), *installed.flags)
    name, images = installed.id(), installed.directory / "images"
    installed("run", "--detach", "--bundle", bundle.sh("echo begun >>/seen; exec sleep 1000").path, name)
    seen = bundle.rootfs / "seen"
    wait_until(lambda: seen.exists() and seen.read_text(), 20, "its first line")
    installed("checkpoint", "--image-path", images, name)
    assert installed.ids() == []
    installed("restore", "--detach", "--image-path", images, "--bundle", bundle.path, name)
    assert installed.state(name)["status"] == "running"
    assert seen.read_text() == "begun\n"


@pytest.mark.parametrize("verb", ["checkpoint", "restore"])
def test_what_needs_a_library_finds_it_late(installed: Runtime, bundle: Bundle, verb: str) -> None:
    """The verbs that speak with criu load its messages only once their library can be found."""
    words: list[str | os.PathLike[str]] = ["--bundle", bundle.path] if verb == "restore" else []
    error = installed.fails("--criu", "/no/criu", verb, *words, installed.id()).stderr
    assert "internal error" not in error
    assert ("does not exist" if verb == "checkpoint" else "criu") in error


def test_archive_is_used_and_not_needed(prefix: pathlib.Path, installed: Runtime) -> None:
    """The code comes out of the archive; for an interpreter that finds none, out of the files beside it."""
    archive = next((prefix / "lib/sysvisor-runc").glob("code-*"))
    program = str(prefix / "sbin/sysvisor-runc")
    trace = subprocess.run(["/usr/bin/python3", "-SI", "-v", program, "list"], capture_output=True, text=True).stderr
    assert "sysvisor_runc/cli/main.py" not in trace
    hidden = archive.rename(archive.with_name("hidden"))
    try:
        assert "sysvisor-runc version" in installed("--version").stdout
    finally:
        hidden.rename(archive)


def tags(*command: str | pathlib.Path) -> list[str]:
    """The build tags that a program reports."""
    said = subprocess.check_output([*command, "--version"], text=True)
    shown = [line.partition(":")[2].split() for line in said.splitlines() if line.startswith("features:")]
    return shown[0] if shown else []


def test_what_runs_goes_on_with_its_own_code(tmp_path: pathlib.Path) -> None:
    """A program of before finds every module as it was after another installation in its place; the one before goes.

    Each reports the build tags that its installation was given.
    """
    archives: list[set[str]] = []

    def install(*wanted: str) -> list[str | pathlib.Path]:
        """Install with these build tags; a program that runs what was read before the next installation."""
        make("install", f"PREFIX={tmp_path}", f"BUILDTAGS={' '.join(wanted)}")
        program = tmp_path / "sbin/sysvisor-runc"
        assert tags(program) == [*wanted]
        archives.append({path.name for path in (tmp_path / "lib/sysvisor-runc").glob("code-*")})
        return ["/usr/bin/python3", "-SI", "-c", program.read_text()]

    old = install("seccomp", "apparmor")
    install()
    assert tags(*old) == ["seccomp", "apparmor"]
    install("seccomp", "selinux", "apparmor", "ambient", "nokmem")
    first, second, third = archives
    assert len(first) == 1 and len(second) == 2 and first < second
    assert len(third) == 2 and not first & third


LIGHT_OS = """
exec(compile(open({path!r}).read(), "archive_os", "exec"), {{"__name__": "os"}})
import sys, os
light = os
assert os.path.join("a", "b") == "a/b" and "os.path" in sys.modules
assert os.environ["GIVEN"] == "1" and os.fsdecode(os.fsencode("\\udcff/a")) == "\\udcff/a"
assert os.open and os.O_CLOEXEC and os.WIFSTOPPED
assert "_collections_abc" not in sys.modules, "the whole os is here"
assert "__path__" not in dir(os)
{first}
import os
assert os is not light and "_collections_abc" in sys.modules
assert {{name for name in dir(os) if not name.startswith("__")}} <= set(dir(light))
assert light.environ is os.environ and light.makedirs is os.makedirs
import subprocess
print(subprocess.check_output(["/bin/sh", "-c", "echo $GIVEN $NEW"], text=True))
"""


@pytest.mark.parametrize(
    ("first", "seen"),
    [
        ("os.makedirs", "1"),
        ("os.environ['NEW'] = '2'", "1 2"),
        ("del os.environ['GIVEN']", ""),
        ("assert os.environ.pop('GIVEN') == '1'", ""),
        ("from os import PathLike", "1"),
    ],
)
def test_the_os_of_the_archive_becomes_the_whole(first: str, seen: str) -> None:
    """What the archive has for `os` has all of `os` as soon as anybody asks for more, and one environment with it."""
    script = LIGHT_OS.format(path=str(SOURCE / "tools/archive_os.py"), first=first)
    done = subprocess.run(["/usr/bin/python3", "-SI", "-c", script], capture_output=True, text=True, env={"GIVEN": "1"})
    assert (done.stdout.strip(), done.stderr) == (seen, "")


def test_short_commands_do_without_the_whole_os(prefix: pathlib.Path, installed: Runtime, bundle: Bundle) -> None:
    """Nothing asks for what only the standard library's os has, and only what launches makes system calls by ctypes."""
    program = [prefix / "sbin/sysvisor-runc", "--root", installed.root, *installed.flags]
    name = installed.id()
    bundle.run("/bin/sleep", "1000")
    for verb in (
        ["create", "--bundle", bundle.path, name],
        ["start", name],
        ["state", name],
        ["exec", name, "/bin/true"],
        ["list"],
        ["kill", name, "KILL"],
        ["delete", "--force", name],
    ):
        with open(installed.directory / "trace", "w+") as trace:
            command = ["/usr/bin/python3", "-SIX", "importtime", *program, *verb]
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=trace, check=True)
            trace.seek(0)
            seen = trace.read()
        assert "sysvisor_runc.cli.main" in seen
        assert "_collections_abc" not in seen, verb
        assert ("_ctypes" in seen) == (verb[0] in ("create", "exec")), verb


def test_traceback_shows_the_installed_source(prefix: pathlib.Path) -> None:
    """A fault of ours is told with file and line, although the code came out of the archive."""
    script = (prefix / "sbin/sysvisor-runc").read_text().partition("from sysvisor_runc.cli.main")[0]
    script += "import sysvisor_runc.jsonlight as j\nj.loads(3)"
    done = subprocess.run(["/usr/bin/python3", "-SI", "-c", script], capture_output=True, text=True)
    assert f'File "{prefix}/lib/sysvisor-runc/sysvisor_runc/jsonlight.py", line ' in done.stderr


def test_destdir_stages_without_touching_the_prefix(tmp_path: pathlib.Path) -> None:
    """With DESTDIR everything lies below it, and the program names the final place."""
    make("install", f"DESTDIR={tmp_path}/stage", "PREFIX=/nowhere")
    assert "LIBRARY = '/nowhere/lib/sysvisor-runc'" in (tmp_path / "stage/nowhere/sbin/sysvisor-runc").read_text()
    assert not pathlib.Path("/nowhere").exists()


def test_unknown_build_tag_is_refused() -> None:
    """A mistyped tag stops the build by name."""
    done = subprocess.run(["make", "build", "BUILDTAGS=secomp"], cwd=SOURCE, capture_output=True, text=True)
    assert done.returncode != 0
    assert "unknown build tag 'secomp'" in done.stderr


def test_make_alone_lists_the_targets() -> None:
    """`make` without a target changes nothing and lists what there is."""
    listed = make("help")
    for target in ("demo", "test", "integration", "install", "lint", "bench", "docs"):
        assert f"  {target} " in listed


def test_installed_program_relays_a_terminal(installed: Runtime, bundle: Bundle) -> None:
    """What the archive leaves out of the code is nothing that the relay of a terminal needs."""
    bundle.process["terminal"] = True
    bundle.sh("echo by the archive; exit 7")
    with on_terminal(installed, "run", "--bundle", bundle.path, installed.id()) as terminal:
        terminal.expect("by the archive")
        assert terminal.wait() == 7

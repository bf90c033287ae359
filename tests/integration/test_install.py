"""`make install`: what it puts where, that it works there, and that nothing stays after `make uninstall`."""

import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.support import leaks
from tests.support.bundle import Bundle
from tests.support.runtime import SOURCE, Runtime
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


@pytest.mark.parametrize("verb", ["checkpoint", "restore"])
def test_what_needs_a_library_finds_it_late(installed: Runtime, bundle: Bundle, verb: str) -> None:
    """The verbs that speak with criu load its messages only once their library can be found."""
    words = ["--bundle", str(bundle.path)] if verb == "restore" else []
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


def test_traceback_shows_the_installed_source(prefix: pathlib.Path) -> None:
    """A fault of ours is told with file and line, although the code came out of the archive."""
    script = (prefix / "sbin/sysvisor-runc").read_text().partition("from sysvisor_runc.cli.main")[0]
    script += "import sysvisor_runc.jsonlight as j\nj.loads(3)"
    done = subprocess.run(["/usr/bin/python3", "-SI", "-c", script], capture_output=True, text=True)
    assert f'File "{prefix}/lib/sysvisor-runc/sysvisor_runc/jsonlight.py", line ' in done.stderr


@pytest.mark.parametrize("tags", ["", "seccomp apparmor", "seccomp selinux apparmor ambient nokmem"])
def test_build_tags_are_reported(tags: str, tmp_path: pathlib.Path) -> None:
    """`--version` tells the build tags that `make install` was given."""
    make("install", f"PREFIX={tmp_path}", f"BUILDTAGS={tags}")
    done = subprocess.run([tmp_path / "sbin/sysvisor-runc", "--version"], capture_output=True, text=True, check=True)
    shown = [line.partition(":")[2].split() for line in done.stdout.splitlines() if line.startswith("features:")]
    assert (shown[0] if shown else []) == tags.split()


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

"""The generated reference: current, well-formed, and usable in a shell."""

import pathlib
import shutil
import subprocess

import pytest

from sysvisor_runc.cli import complete, docs
from sysvisor_runc.cli.table import COMMANDS, shown
from tests.support import source

PAGES = docs.man_pages()
SCRIPTS = complete.scripts(docs.GENERATED)

# Completes the words of "$@" in a fresh bash and prints what it offers, one per line.
DRIVER = """
. "$SCRIPT"
COMP_WORDS=("$@")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_sysvisor_runc
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(("directory", "files"), [("docs/man", PAGES), ("contrib/completions", SCRIPTS)])
def test_committed_copies_are_current(directory: str, files: dict[str, str]) -> None:
    """Whoever changes the table runs `python3 -m sysvisor_runc.cli.docs`."""
    committed = {path.name: path.read_text() for path in (source.ROOT / directory).iterdir()}
    assert committed == files


def test_every_command_has_a_page() -> None:
    """One page per command that people are told of, and the main page names them all."""
    names = {f"sysvisor-runc-{verb}.8" for verb in shown() if verb != "help"} | {"sysvisor-runc.8"}
    assert set(PAGES) == names
    assert all(name[:-2] in PAGES["sysvisor-runc.8"] for name in names)


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_clean_roff(name: str) -> None:
    """groff has nothing to complain about, and every visible flag is there."""
    if shutil.which("groff") is None:
        pytest.skip("no groff; to force it: apt-get install groff-base")
    done = subprocess.run(["groff", "-man", "-ww", "-Tutf8"], input=PAGES[name], capture_output=True, text=True)
    assert done.stderr == ""
    verb = name.removeprefix("sysvisor-runc-").removesuffix(".8")
    for flag in COMMANDS.get(verb, ("", "", 0, 0, False, ()))[5]:
        assert not flag[5] or f"--{flag[0]}".replace("-", "\\-") in PAGES[name]


@pytest.fixture
def completed(tmp_path: pathlib.Path) -> "Completed":
    return Completed(tmp_path)


class Completed:
    """Asks bash what it would offer for a command line, in a directory with one file and one subdirectory."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.script = directory / "script"
        self.script.write_text(SCRIPTS["sysvisor-runc.bash"])
        self.place = directory / "place"
        (self.place / "sub dir").mkdir(parents=True)
        (self.place / "file").touch()
        # Stands in for the program where it is asked for the containers of a state root.
        self.program = directory / "program"
        self.program.write_text('#!/bin/sh\nprintf "%s\\n" "$*" one two\n')
        self.program.chmod(0o755)

    def __call__(self, *words: str) -> list[str]:
        done = subprocess.run(
            ["bash", "--norc", "-c", DRIVER, "bash", str(self.program), *words],
            cwd=self.place, env={"SCRIPT": str(self.script), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.stderr == ""
        return done.stdout.split("\n")[:-1]


def test_bash_offers_commands_and_flags(completed: Completed) -> None:
    """Commands first, then the flags of the command that stands there."""
    assert completed("re") == ["restore", "resume"]
    assert completed("--no-") == ["--no-sysvisor-fs", "--no-syscont"]
    assert completed("--debug", "run", "--no-") == [
        "--no-pivot", "--no-new-keyring", "--no-supervisor", "--no-subreaper",
    ]  # fmt: skip
    assert completed("help", "sta") == ["start", "state"]
    assert completed("kill", "-") == [""]


def test_bash_offers_values(completed: Completed) -> None:
    """The word after a flag is completed by its kind, apart or joined by `=`, in long or short."""
    assert completed("list", "-f", "") == ["table", "json"]
    assert completed("--log-format", "=", "j") == ["json"]
    assert completed("--log-format", "=") == ["text", "json"]
    assert completed("run", "-b", "") == ["sub dir"]
    assert sorted(completed("run", "--pid-file", "")) == ["file", "sub dir"]
    assert completed("exec", "--user", "") == [""]
    assert completed("run", "--uid-shift", "ch") == ["chown"]


def test_bash_offers_containers(completed: Completed) -> None:
    """Where an existing container is wanted, those under the given --root are offered; never as a second argument."""
    assert completed("state", "o") == ["one"]
    assert "/x" in completed("--root", "/x", "delete", "-f", "")
    assert "/x" in completed("--root", "=", "/x", "state", "")
    assert completed("state", "one", "o") == [""]
    assert completed("run", "o") == [""]
    assert "SIGTERM" in completed("kill", "one", "SIGT") and completed("kill", "one", "TE") == ["TERM"]


@pytest.mark.parametrize(("shell", "name"), [("bash", "sysvisor-runc.bash"), ("zsh", "_sysvisor-runc"),
                                             ("fish", "sysvisor-runc.fish")])  # fmt: skip
def test_scripts_parse(shell: str, name: str) -> None:
    """Each shell accepts its script."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}; to force it: apt-get install {shell}")
    done = subprocess.run([shell, "-n"], input=SCRIPTS[name], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_writing_elsewhere(tmp_path: pathlib.Path) -> None:
    """`make install` has both kinds of files written below a directory of its own."""
    assert docs.main([str(tmp_path)]) == 0
    assert (tmp_path / "man/sysvisor-runc.8").read_text() == PAGES["sysvisor-runc.8"]
    assert {path.name for path in (tmp_path / "completions").iterdir()} == set(SCRIPTS)

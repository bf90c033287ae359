"""The program itself, started as a client starts it: what no test inside one process can see."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from sysvisor_runc.cli.table import shown
from tests.support.runtime import PROGRAM

NOBODY = 65534


def start(*argv: str, **popen: object) -> "subprocess.CompletedProcess[str]":
    """Run the program to its end and collect both outputs."""
    defaults: dict[str, object] = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "timeout": 30}
    done: subprocess.CompletedProcess[str] = subprocess.run([PROGRAM, *argv], **(defaults | popen))  # type: ignore[call-overload]
    return done


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_has_help(flag: str) -> None:
    """As runc's suite asks: success, NAME: on the first line, program and command on the second."""
    for verb in (verb for verb in shown() if verb != "help"):
        done = start(verb, flag)
        lines = done.stdout.splitlines()
        assert (done.returncode, done.stderr, lines[0]) == (0, "", "NAME:")
        assert f"{PROGRAM.name} {verb}" in lines[1]


def test_it_starts_from_anywhere(tmp_path: pathlib.Path) -> None:
    """Through a symbolic link, in a strange directory, with a hostile environment: nothing from there is loaded."""
    (tmp_path / "os.py").write_text("raise SystemExit('stolen')")
    (tmp_path / "sysvisor_runc.py").write_text("raise SystemExit('stolen')")
    (tmp_path / "link").symlink_to(PROGRAM)
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "os.py"), "PYTHONHOME": str(tmp_path)}
    done = subprocess.run([tmp_path / "link", "-v"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("sysvisor-runc version ")


def test_a_full_disk_is_told() -> None:
    """Output that could not be written is a failure, with a reason."""
    with open("/dev/full", "w") as full:
        done = start("features", stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert done.returncode == 1
    assert done.stderr == "sysvisor-runc: write to standard output: no space left on device\n"


def test_a_reader_may_leave_early() -> None:
    """As any Unix program, it ends quietly when nobody reads on."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = start("features", stdout=writing, stderr=subprocess.PIPE, capture_output=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_standard_files_do_no_harm(closed: str, tmp_path: pathlib.Path) -> None:
    """A caller that closed 0, 1 or 2 does not find our log file, or its own, in their place."""
    log = tmp_path / "log"
    script = f'exec "$0" --log "$1" "$2" "$3" {closed}'
    for verb, argument, code in (("spec", f"--bundle={tmp_path}", 0), ("spec", "extra", 1)):
        done = subprocess.run(["sh", "-c", script, PROGRAM, log, verb, argument], timeout=30, stdin=subprocess.DEVNULL)
        assert done.returncode == code
    assert json.loads((tmp_path / "config.json").read_text())["ociVersion"]
    assert log.read_text().count("\n") == 1


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8", "en_US.ISO-8859-1"])
def test_any_bytes_in_any_locale(locale: str, tmp_path: pathlib.Path) -> None:
    """Names are bytes on Linux: an error about one repeats it, whatever the locale."""
    name = os.fsencode(tmp_path) + b"/\xe9\xc3\xa9 x"
    done = subprocess.run(
        [PROGRAM, b"--log", tmp_path / "log", b"spec", b"-b", name],
        env={"LC_ALL": locale},
        capture_output=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(b"sysvisor-runc: create ")
    assert done.stderr.count(b"\n") == 1
    assert b"internal" not in done.stderr


def test_an_ordinary_user_has_a_state_root(tmp_path: pathlib.Path) -> None:
    """It lies in XDG_RUNTIME_DIR, is private, and sticky so that nobody cleans it away (XDG base directories)."""
    session = tmp_path / "session"
    session.mkdir(mode=0o700)
    os.chown(session, NOBODY, NOBODY)
    for directory in tmp_path.parents[:3]:
        directory.chmod(directory.stat().st_mode | 0o011)
    tmp_path.chmod(0o711)
    done = start("version", env={"XDG_RUNTIME_DIR": str(session)}, user=NOBODY, group=NOBODY, extra_groups=[])
    assert (done.returncode, done.stderr) == (0, "")
    assert (session / "sysvisor-runc").stat().st_mode & 0o7777 == 0o1700
    done = start("version", env={"XDG_RUNTIME_DIR": "/proc"}, user=NOBODY, group=NOBODY, extra_groups=[])
    assert done.returncode == 1
    assert "$XDG_RUNTIME_DIR" in done.stderr


def test_the_host_s_root_keeps_out_of_sessions(tmp_path: pathlib.Path) -> None:
    """Root's containers are not tied to whoever happens to be logged in."""
    done = start("version", env={"XDG_RUNTIME_DIR": str(tmp_path)})
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_the_way_in_loads_little() -> None:
    """Before a command's own module, only a handful of ours are loaded, and nothing of the standard library."""
    code = f"""
import os, sys
before = set(sys.modules)
sys.path.append({str(PROGRAM.resolve().parents[1])!r})
import sysvisor_runc.cli.main
print(*sorted(set(sys.modules) - before))
"""
    done = subprocess.run(["/usr/bin/python3", "-SI", "-c", code], capture_output=True, text=True)
    ours = "sysvisor_runc sysvisor_runc.cli sysvisor_runc.cli.main sysvisor_runc.cli.parse sysvisor_runc.cli.table"
    rest = "sysvisor_runc.errors sysvisor_runc.log sysvisor_runc.version"
    assert set(done.stdout.split()) - {"__future__"} == set(f"{ours} {rest}".split())


def test_it_is_python_s_isolated_mode() -> None:
    """The environment of the caller cannot bend the interpreter: no site, no user directory, no PYTHON* variables."""
    first = PROGRAM.read_text().splitlines()[0]
    assert first.startswith("#!/")
    assert first.endswith(" -SI")
    assert sys.version_info >= (3, 11)

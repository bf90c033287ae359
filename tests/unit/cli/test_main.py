"""How failures reach the caller: one line, the log, the exit code."""

import errno
import json
import pathlib
import sys
import types
from collections.abc import Callable

import pytest

from sysvisor_runc import log
from sysvisor_runc.cli import main
from sysvisor_runc.cli.parse import Options
from sysvisor_runc.errors import SpecError, StateError, UsageError


@pytest.fixture(autouse=True)
def _nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test starts, and leaves, with the default sink."""
    monkeypatch.setattr(log, "_sink", log.to_stderr)
    monkeypatch.setattr(log, "_threshold", log._RANKS["warning"])


@pytest.fixture
def fail_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, BaseException], None]:
    """Makes a command raise: `fail_with("state", error)`."""

    def replace(verb: str, error: BaseException) -> None:
        def run(options: Options) -> int:
            raise error

        module = types.ModuleType(f"sysvisor_runc.cli.{verb}")
        module.__dict__["run"] = run
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return replace


ERRORS = [
    ("state", StateError("container does not exist"), "sysvisor-runc: container does not exist", 1),
    ("state", StateError("no", hint="try this"), "sysvisor-runc: no (try this)", 1),
    ("state", StateError("no", exit_code=7), "sysvisor-runc: no", 7),
    ("state", StateError("two\nlines"), "sysvisor-runc: two lines", 1),
    ("run", SpecError("process.cwd", "no"), "sysvisor-runc run failed: invalid configuration: process.cwd: no", 1),
    ("create", StateError("no"), "sysvisor-runc create failed: no", 1),
    ("exec", StateError("no"), "sysvisor-runc: exec failed: no", 255),
    ("exec", UsageError("no"), "sysvisor-runc: no", 1),
    ("state", MemoryError(), "sysvisor-runc: out of memory", 1),
    ("state", ZeroDivisionError("x"), "sysvisor-runc: internal error: ZeroDivisionError: x"
     " (run with --debug for the traceback)", 1),
    ("state", RecursionError(), "sysvisor-runc: internal error: RecursionError"
     " (run with --debug for the traceback)", 1),
    ("state", FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"), "sysvisor-runc: unexpected failure:"
     " '/x': no such file or directory (run with --debug for the traceback)", 1),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "error", "line", "code"), ERRORS)
def test_a_failure_is_one_line_and_a_code(
    verb: str,
    error: BaseException,
    line: str,
    code: int,
    fail_with: Callable[[str, BaseException], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Whatever a command raises, its caller reads one line; exec fails with 255 as runc's does."""
    fail_with(verb, error)
    assert main.run([verb, "id", "command"][: 3 if verb == "exec" else 2]) == code
    captured = capfd.readouterr()
    assert captured.err == line + "\n"
    assert captured.out == ""


def test_ctrl_c_is_silent(fail_with: Callable[[str, BaseException], None], capfd: pytest.CaptureFixture[str]) -> None:
    """Whoever interrupts a command knows that it was interrupted."""
    fail_with("state", KeyboardInterrupt())
    assert main.run(["state", "id"]) == 130
    assert capfd.readouterr().err == ""


def test_a_socket_s_broken_pipe_is_a_failure(
    fail_with: Callable[[str, BaseException], None], capfd: pytest.CaptureFixture[str]
) -> None:
    """Only a reader of standard output may leave early without a word; any other peer that vanishes is told."""
    fail_with("state", BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert main.run(["state", "id"]) == 1
    assert "broken pipe" in capfd.readouterr().err


def test_the_log_gets_the_error_too(
    tmp_path: pathlib.Path, fail_with: Callable[[str, BaseException], None], capfd: pytest.CaptureFixture[str]
) -> None:
    """containerd's shim takes the reason of a failure from the last JSON line with level error."""
    fail_with("create", StateError("no", hint="try this"))
    path = tmp_path / "log.json"
    assert main.run(["--log", str(path), "--log-format", "json", "create", "id"]) == 1
    last = json.loads(path.read_text().splitlines()[-1])
    assert (last["level"], last["msg"]) == ("error", "sysvisor-runc create failed: no (try this)")
    assert capfd.readouterr().err == "sysvisor-runc create failed: no (try this)\n"
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("argv", [["state"], ["run", "--bogus", "id"], ["foo"]])
def test_the_log_gets_usage_errors(tmp_path: pathlib.Path, argv: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """A bad command line reaches the log that its own global flags name."""
    path = tmp_path / "log"
    assert main.run(["--log", str(path), *argv]) != 0
    assert path.read_text().startswith('time="')
    assert " level=error msg=" in path.read_text()
    assert capfd.readouterr().err.count("\n") == 1


def test_json_without_a_file_goes_to_standard_error(
    fail_with: Callable[[str, BaseException], None], capfd: pytest.CaptureFixture[str]
) -> None:
    """--log-format json alone makes standard error the log, as with runc."""
    fail_with("state", StateError("no"))
    assert main.run(["--log-format", "json", "state", "id"]) == 1
    assert json.loads(capfd.readouterr().err)["msg"] == "no"


@pytest.mark.parametrize("path", ["/nonexistent/log", "/"])
def test_a_log_that_cannot_be_opened_is_an_error(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is done when nobody could be told of it."""
    assert main.run(["--log", path, "version"]) == 1
    captured = capfd.readouterr()
    assert captured.err.startswith(f"sysvisor-runc: open log file '{path}': ")
    assert captured.out == ""


def test_debug_shows_the_traceback(
    tmp_path: pathlib.Path, fail_with: Callable[[str, BaseException], None], capfd: pytest.CaptureFixture[str]
) -> None:
    """On standard error as it is, in a log file as one message of level debug."""
    fail_with("state", ZeroDivisionError())
    main.run(["--debug", "state", "id"])
    assert "\nTraceback (most recent call last):\n" in capfd.readouterr().err
    main.run(["--debug", "--log", str(tmp_path / "log"), "state", "id"])
    assert "Traceback" not in capfd.readouterr().err
    assert 'level=debug msg="Traceback' in (tmp_path / "log").read_text()


def test_usage_errors_have_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    """A bad command line is nobody's bug."""
    main.run(["--debug", "state"])
    assert "Traceback" not in capfd.readouterr().err

"""The way in: parse, load the one module that the command needs, run it, and leave.

The only place where an exception becomes words for a person, and where the process exits.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of signal has no stub
import os
import sys
from io import TextIOWrapper

from sysvisor_runc import log
from sysvisor_runc.cli.parse import STATE_ROOT, GlobalOptions, parse
from sysvisor_runc.errors import SysvisorError, UsageError, reason
from sysvisor_runc.version import NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from sysvisor_runc.cli.parse import Options, Store

INTERRUPTED = 130  # as a shell reports a death by SIGINT
BROKEN_PIPE = 141  # … and one by SIGPIPE
EXEC_FAILED = 255  # so that callers tell it from a status of the process, as with runc

# What may run out anywhere.
_SHORT_OF = {
    11: "the limit on processes is reached: ulimit -u, or pids.max of a cgroup",  # EAGAIN
    12: "the kernel or a limit has no memory for it: ulimit -v, or a cgroup's limit",  # ENOMEM
    23: "the system's limit on open files is reached: sysctl fs.file-max",  # ENFILE
    24: "the limit on open files is reached: ulimit -n",  # EMFILE
    28: "free some space",  # ENOSPC
}

# runc names these commands in their errors, and callers look for it.
_LEAD = {"create": f"{NAME} create failed: ", "run": f"{NAME} run failed: ", "exec": "exec failed: "}


def main() -> NoReturn:
    """Run the command line of this process and leave with its exit code."""
    _fill_standard_fds()
    # Ignored by our caller, it would have the kernel reap our children before we have their exit codes.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    if isinstance(sys.stdout, TextIOWrapper):
        # File names and annotations need not be valid in the caller's locale.
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    leave(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Run one command line, given without the program's name. Returns the exit code; every failure has been told."""
    shared: Store = {}
    verb = ""
    try:
        options = parse(argv, shared)
        verb = options.verb
        _prepare(options.globals)
        code = _command(verb)(options)
        _flush()
    except BaseException as error:  # noqa: BLE001  # the boundary: whatever it is, the caller gets one line and a code
        return report(error, verb, shared)
    return code


def leave(code: int) -> NoReturn:
    """Exit without tearing the interpreter down, which takes longer than some commands."""
    os._exit(code)


def report(error: BaseException, verb: str, shared: Store) -> int:
    """Tell `error` on one line, in the log if there is one, and return the exit code."""
    if isinstance(error, BrokenPipeError) and _stdout_is_broken():
        return BROKEN_PIPE
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    usage = isinstance(error, UsageError)
    bare = isinstance(error, SysvisorError) and error.bare
    message = " ".join(_message(error).split("\n"))
    if not (usage or bare):
        message = _LEAD.get(verb, "") + message
    if not _logged(message, shared):
        line = message if bare or message.startswith(NAME) else f"{NAME}: {message}"
        _to_stderr(log.printable(line))
    if "debug" in shared and not usage:
        _show_traceback(error, "log" in shared)
    code = error.exit_code if isinstance(error, SysvisorError) else 1
    return EXEC_FAILED if verb == "exec" and code == 1 and not usage else code


def _command(verb: str) -> Callable[[Options], int]:
    module = __import__(f"sysvisor_runc.cli.{verb}", fromlist=["run"])
    command: Callable[[Options], int] = module.run
    return command


def _prepare(shared: GlobalOptions) -> None:
    if shared.log is not None or shared.debug or shared.log_format != "text":
        from sysvisor_runc.cli.log import configure

        configure(shared)
    if not shared.root_given and shared.root != STATE_ROOT:
        from sysvisor_runc.cli.runtimeroot import make_runtime_root

        make_runtime_root(shared.root)


def _flush() -> None:
    """Write out what the command printed, while a failure to do so can still be told."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise SysvisorError(f"write to standard output: {reason(error)}") from error


def _message(error: BaseException) -> str:
    if isinstance(error, SysvisorError):
        return f"{error.message} ({error.hint})" if error.hint else error.message
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, OSError) and error.strerror:
        operand = f"{error.filename!r}: " if error.filename is not None else ""
        if error.errno in _SHORT_OF:
            return f"{operand}{reason(error)} ({_SHORT_OF[error.errno]})"
        return f"unexpected failure: {operand}{reason(error)} (run with --debug for the traceback)"
    detail = f": {error}" if str(error) else ""
    return f"internal error: {type(error).__name__}{detail} (run with --debug for the traceback)"


def _logged(message: str, shared: Store) -> bool:
    """Write the error to where --log and --log-format say. Returns whether that was standard error itself."""
    if not ("log" in shared or "log-format" in shared):
        return False
    if log.is_default():  # parsing failed before the log was set up
        from sysvisor_runc.cli.log import configure

        try:
            configure(GlobalOptions(shared))
        except SysvisorError:  # the very thing being reported, most likely
            return False
    log.error(message)
    return "log" not in shared


def _to_stderr(line: str) -> None:
    try:
        os.write(2, f"{line}\n".encode("utf-8", "surrogateescape"))
    except OSError:  # closed: nobody wants to hear it
        pass


def _stdout_is_broken() -> bool:
    """Whether the reader of standard output has gone, as opposed to the peer of some socket of ours."""
    from select import POLLERR, poll

    poller = poll()
    poller.register(1, 0)
    return any(events & POLLERR for _, events in poller.poll(0))


def _fill_standard_fds() -> None:
    """Open what the caller closed of 0, 1 and 2, lest our own files land there and be taken for the container's."""
    if sys.stdin is not None and sys.stdout is not None and sys.stderr is not None:
        return
    fd = os.open("/dev/null", os.O_RDWR)
    while fd <= 2:
        os.set_inheritable(fd, True)
        fd = os.open("/dev/null", os.O_RDWR)
    os.close(fd)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)


def _show_traceback(error: BaseException, in_log: bool) -> None:
    import traceback

    text = "".join(traceback.format_exception(error))
    if in_log and log.debugging():
        log.debug(text)
    else:
        _to_stderr(text.rstrip())

"""The way into sysvisor-fs: which command, and in which order a daemon comes up.

Nothing heavy is imported here: a reader whose daemon was killed waits until the next one serves, so FUSE is served
before asyncio is even loaded (`daemon`), and gRPC is another process's (`gateway`).
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from sysvisor_fs import messages
from sysvisor_fs.options import USAGE, parse
from sysvisor_runc.contract.names import LOG_FILE
from sysvisor_runc.errors import SysvisorError, reason
from sysvisor_runc.kernel.syscall import SyscallError
from sysvisor_runc.version import VERSION

if TYPE_CHECKING:
    from sysvisor_fs.options import Options


def main() -> None:
    """Run the command line of this process, and leave."""
    sys.exit(_run(sys.argv[1:]))


def _run(argv: list[str]) -> int:
    debug = "--debug" in argv
    try:
        return _command(parse(argv))
    except KeyboardInterrupt:
        return 130
    except SysvisorError as error:
        if debug:
            raise
        _tell(error.message, error.hint)
        return error.exit_code
    except OSError as error:
        if debug:
            raise
        if isinstance(error, SyscallError):
            _tell(str(error), None)
        else:
            _tell(f"{error.filename}: {reason(error)}" if error.filename else reason(error), None)
        return 1


def _tell(message: str, hint: str | None) -> None:
    text = f"sysvisor-fs: {message}\n" + (f"hint: {hint}\n" if hint else "")
    os.write(2, text.encode("utf-8", "backslashreplace"))


def _command(options: Options) -> int:
    if options.help or options.version:
        messages.show(USAGE if options.help else f"sysvisor-fs version {VERSION}\n")
        return 0
    if options.command == "status":
        import importlib

        shown: int = importlib.import_module("sysvisor_fs.status").main([
            f"--run-dir={options.run_dir}", *options.words[1:],
        ])  # fmt: skip
        return shown
    if os.geteuid() != 0:
        raise SysvisorError("expected to be root", hint="it mounts file systems for containers")
    if options.command == "holder":
        from sysvisor_fs import holder

        messages.send_to("", options.log_format, options.debug, f"{options.run_dir}/{LOG_FILE}")
        return holder.main(options.run_dir, options.mountpoint, options.words[1])
    if options.command == "stop":
        from sysvisor_fs.stop import stop

        return stop(options)
    if options.command == "remount":
        from sysvisor_fs.remount import remount

        messages.send_to(options.log, options.log_format, options.debug)
        return remount(options)
    if options.command == "gateway":
        from sysvisor_fs import gateway

        messages.send_to(options.log, options.log_format, options.debug, f"{options.run_dir}/{LOG_FILE}")
        return gateway.main(int(options.words[1]), int(options.words[2]))
    from sysvisor_fs.daemon import serve

    return serve(options)

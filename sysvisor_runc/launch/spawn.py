"""Run a helper program of the host and wait for it, without the price of the subprocess module."""

from __future__ import annotations

import os

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run_program(args: list[str]) -> None:
    """Run `args` found in PATH, with the caller's stderr.

    Raises:
        OSError: it is not there, or ended with another code than 0.
    """
    pid = os.posix_spawnp(args[0], args, {"PATH": os.environ.get("PATH", _PATH)})
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        raise OSError(5, f"exit status {code}", args[0])

"""Run a helper program of the host and wait for it, without the price of the subprocess module."""

from __future__ import annotations

import os

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run_program(args: list[str], *, quiet: bool = False) -> None:
    """Run `args` found in PATH, with the caller's stderr unless `quiet`.

    Raises:
        OSError: it is not there, or ended with another code than 0.
    """
    actions = [(os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0)] if quiet else []
    pid = os.posix_spawnp(args[0], args, {"PATH": os.environ.get("PATH", _PATH)}, file_actions=actions)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        raise OSError(5, f"exit status {code}", args[0])

"""The descriptors that the command line hands on to a program."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.parse import Options


def preserved(options: Options) -> int:
    """How many descriptors after stderr the program gets: those of --preserve-fds, and of socket activation."""
    listen = os.environ.get("LISTEN_FDS", "")
    return (options.number("preserve-fds") or 0) + (int(listen) if listen.isdigit() else 0)

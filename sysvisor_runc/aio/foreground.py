"""A container's terminal in the foreground: the order of things. Does not import asyncio by itself.

`run` and `exec` hand over a process that is there or about to start; loading the loop takes as long as two launches, so
the program starts first and what it writes meanwhile waits in the terminal.
"""

from __future__ import annotations

from sysvisor_runc.launch.terminal import CallerTerminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.launch.child import Child
    from sysvisor_runc.launch.notify import Proxy


def relay(
    child: Child,
    console: int,
    signal_fd: int,
    start: Callable[[], object] | None = None,
    proxy: Proxy | None = None,
) -> int:
    """Relay our terminal to the container's until `child` has ended; its exit code, 128+n where a signal ended it.

    `console` is the master, `signal_fd` reads the signals, all of which are blocked; both are closed in here. `start`
    lets the program go; what it raises passes through with the terminal restored. `proxy` has the container's messages
    to the service manager passed on meanwhile.
    """
    with CallerTerminal() as terminal:
        if start is not None:
            start()
        from sysvisor_runc.aio.attendant import attend
        from sysvisor_runc.aio.loop import run

        return run(attend(child, console, signal_fd, terminal, proxy))

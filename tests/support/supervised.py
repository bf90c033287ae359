"""A supervisor as tests see it: asked over its socket, looked at in /proc, and ended by its pid."""

import json
import os
import pathlib
import signal
import time
from typing import Any

from sysvisor_runc.launch import tell
from tests.support.runtime import Runtime, supervisors, wait_until


def status(runtime: Runtime, timeout: float = 15) -> dict[str, Any]:
    """What the supervisor of the runtime's state root says of itself, as soon as there is one."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return tell.ask(str(runtime.root), {"op": "status"}, timeout=timeout)[0]
        except tell.NoSupervisor:
            assert time.monotonic() < deadline, f"no supervisor within {timeout} s"
            time.sleep(0.02)


def known(runtime: Runtime, container: str) -> dict[str, Any]:
    """What `state` shows of a container's supervision."""
    found: dict[str, Any] = runtime.state(container)["supervision"]
    return found


def kill_supervisor(runtime: Runtime) -> int:
    """SIGKILL the supervisor alone; its pid."""
    pid: int = status(runtime)["pid"]
    kill(pid)
    return pid


def kill(pid: int) -> None:
    """SIGKILL one process and wait until it is gone."""
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)
    wait_until(lambda: not alive(pid), what=f"the end of {pid}")


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return text[text.rindex(b")") + 2 : text.rindex(b")") + 3] not in (b"Z", b"X")


def events(runtime: Runtime) -> list[dict[str, Any]]:
    """All events that the journal has, oldest first."""
    journal = runtime.root / "@supervisor/events/journal"
    return [json.loads(line) for line in journal.read_text().splitlines()]


def wait_idle(runtime: Runtime) -> None:
    """Wait until no supervisor of the state root is left."""
    wait_until(lambda: not supervisors(str(runtime.root)), 20, "the end of an idle supervisor")

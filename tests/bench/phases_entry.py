"""The program with a stopwatch: `python3 -SI phases_entry.py PROGRAM FILE ARGUMENT…` runs the command ARGUMENT…

and writes a line `PID STEP NANOSECONDS` whenever the launch or its child reaches a step (`launch/steps.py`).
"""

import os
import sys
import time

BEGAN = time.monotonic_ns()
program, marks, *sys.argv[1:] = sys.argv[1:]
# What the program does before it hands over: say where the library is.
with open(program) as file:
    exec(file.read().partition("\nfrom sysvisor_runc.cli.main")[0], {"__file__": program})
FD = os.open(marks, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def mark(step: str, now: int = 0) -> None:
    global last
    last = step
    if step == "fs-daemon":
        time_calls()
    try:
        os.write(FD, f"{os.getpid()} {step} {now or time.monotonic_ns()}\n".encode())
    except OSError:
        pass  # the child has closed what is not its own


def time_calls() -> None:
    """Waiting for the answer to a call of sysvisor-fs is a step of its own; the one before it goes on behind it."""
    from sysvisor_runc.launch.fslink import Link

    receive = Link.receive

    def timed(self: Link) -> dict[str, object]:
        before = last
        mark(f"fs-wait-{self._waiting[0]['call']}")
        try:
            return receive(self)
        finally:
            mark(before)

    Link.receive = timed  # type: ignore[method-assign]


last = ""
mark("imports", BEGAN)
from sysvisor_runc.launch import steps  # noqa: E402 - replaced before anybody takes a copy

# The child only reports its steps while a fault may be injected; no step has this name.
steps.FAULT = "none:none"
steps.reached = mark

from sysvisor_runc.cli import main as entry  # noqa: E402
from sysvisor_runc.cli import run as _run  # noqa: E402, F401 - what the command loads when it begins

_leave = entry.leave
mark("parse")


def leave(code: int) -> None:
    mark("exit")
    _leave(code)


entry.leave = leave  # type: ignore[assignment]
entry.main()

"""Let a container's init go on: the byte that it waits for, and the poststart hooks."""

from __future__ import annotations

import errno
import os
import select

from sysvisor_runc.errors import StateError, reason
from sysvisor_runc.launch import hooks
from sysvisor_runc.launch.interrupt import check
from sysvisor_runc.launch.steps import reached
from sysvisor_runc.plan.build import parse_hooks
from sysvisor_runc.state import lifecycle
from sysvisor_runc.state.observe import observe
from sysvisor_runc.state.store import Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.launch.create import Created
    from sysvisor_runc.state.record import Record


def release(created: Created) -> None:
    """Start the init of a `run`: it reads one byte, and the report ends once the user's program runs.

    Raises:
        LaunchError: the program could not be executed.
    """
    check()
    reached("start")
    os.write(created.start, b"0")
    os.close(created.start)
    os.set_blocking(created.report, True)
    report = os.read(created.report, 8)
    os.close(created.report)
    if report:
        raise created.conversation.stage_failure(report)
    # The container is there for everybody, first of all for its own poststart hooks.
    created.entry.unlock()
    reached("poststart")
    hooks.run_hooks_tolerantly(created.plan.hooks["poststart"], created.state("running"))


def start(entry: Entry, record: Record) -> None:
    """Start a created container; returns once the user's program runs, or could not be executed.

    Raises:
        StateError: it is not in the status for it.
    """
    lifecycle.require("start", observe(entry, record), record["id"])
    try:
        fifo = os.open(Entry.FIFO, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=entry.dirfd)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise StateError("cannot start a container that has stopped") from error
        raise StateError(f"open {entry.path}/{Entry.FIFO}: {reason(error)}") from error
    try:
        reached("start")
        os.write(fifo, b"0")
        _await_execve(fifo)
    finally:
        os.close(fifo)
    reached("started")
    os.unlink(Entry.FIFO, dir_fd=entry.dirfd)
    record["status"] = "running"
    entry.save(record)
    entry.unlock()
    reached("poststart")
    found = parse_hooks(record["spec"].get("hooks") or {}, "poststart")
    if found:
        state = hooks.state_json(
            record["id"],
            record["ociVersion"],
            "running",
            record["initPid"],
            record["bundle"],
            record["annotations"],
        )
        hooks.run_hooks_tolerantly(found, state)


def _await_execve(fifo: int) -> None:
    """Init's end of the pipe closes when it executes the program (or ends): then nobody reads any more (POLLERR)."""
    poll = select.poll()
    poll.register(fifo, 0)
    poll.poll()

"""Let a container's init go on: the byte that it waits for, and the poststart hooks."""

from __future__ import annotations

import errno
import os
import select

from sysvisor_runc.child.channel import LATE
from sysvisor_runc.errors import StateError, reason
from sysvisor_runc.launch.interrupt import check
from sysvisor_runc.launch.steps import reached
from sysvisor_runc.state import lifecycle
from sysvisor_runc.state.observe import observe
from sysvisor_runc.state.store import Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.launch.create import Created
    from sysvisor_runc.spec.types import Hooks
    from sysvisor_runc.state.record import Record

_START = b"0"
_REPORT_MAX = 1 << 16


def release(created: Created) -> None:
    """Start the init of a `run`: it reads one byte, and the report ends once the user's program runs.

    Raises:
        LaunchError: the program could not be executed.
    """
    check()
    reached("start")
    os.write(created.start, _START)
    os.close(created.start)
    os.set_blocking(created.report, True)
    report = os.read(created.report, _REPORT_MAX)
    os.close(created.report)
    if report:
        raise created.conversation.stage_failure(report)
    # The container is there for everybody, first of all for its own poststart hooks.
    created.entry.unlock()
    reached("poststart")
    if created.plan.hooks["poststart"]:
        from sysvisor_runc.launch import hooks

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
    reached("start")
    failure = _start_and_await_execve(entry, fifo)
    reached("started")
    if failure:
        from sysvisor_runc.launch.conversation import init_failure

        raise init_failure(failure)
    os.unlink(Entry.FIFO, dir_fd=entry.dirfd)
    record["status"] = "running"
    entry.save(record)
    entry.unlock()
    reached("poststart")
    declared = record["spec"].get("hooks") or {}
    if declared.get("poststart"):
        _poststart(record, declared)


def _poststart(record: Record, declared: Hooks) -> None:
    from sysvisor_runc.launch import hooks
    from sysvisor_runc.plan.hooks import parse_hooks

    pid = record["initPid"]
    state = hooks.state_json(
        record["id"], record["ociVersion"], "running", pid, record["bundle"], record["annotations"]
    )
    hooks.run_hooks_tolerantly(parse_hooks(declared, "poststart"), state)


def _start_and_await_execve(entry: Entry, fifo: int) -> str:
    """Write the byte and wait until init executes the program, or ends; what it said in that case.

    Init has the pipe open for both, until then: once we have closed our writing end, the reading one is hung up when
    init's goes.

    Raises:
        StateError: init has ended before it read the byte.
    """
    reader = os.open(Entry.FIFO, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=entry.dirfd)
    try:
        os.write(fifo, _START)
        os.close(fifo)
        poll = select.poll()
        poll.register(reader, 0)
        poll.poll()
        left = os.read(reader, _REPORT_MAX)
    finally:
        os.close(reader)
    if left.startswith(_START):
        raise StateError("cannot start a container that has stopped")
    return left.removeprefix(LATE).decode("utf-8", "replace")

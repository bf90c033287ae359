"""Let a container's init go on: the byte that it waits for, and the poststart hooks."""

from __future__ import annotations

import errno
import os
import select

from sysvisor_runc import log
from sysvisor_runc.errors import LaunchError, StateError, reason
from sysvisor_runc.kernel.pidfd import pidfd_send_signal
from sysvisor_runc.launch.interrupt import check, descriptor
from sysvisor_runc.launch.ocistate import state_json
from sysvisor_runc.launch.steps import reached
from sysvisor_runc.state import lifecycle
from sysvisor_runc.state.observe import observe
from sysvisor_runc.state.store import Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Hooks
    from sysvisor_runc.state.record import Record

_START = b"0"
# Milliseconds in which a program is usually executed. A signal that comes meanwhile stays pending; to read signals from
# a descriptor takes more code than all the rest here.
_SOON = 50


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
    declared = record["spec"].get("hooks") or {}
    if declared.get("startContainer"):
        _run_start_hooks(entry, record, declared)
    _start_and_await_execve(entry, fifo)
    if "overlayWork" in record:
        from sysvisor_runc.launch.coherence import refresh_both

        refresh_both(record)
    reached("started")
    _note_started(entry, record)
    entry.unlock()
    reached("poststart")
    if declared.get("poststart"):
        _poststart(record, declared)


def _note_started(entry: Entry, record: Record) -> None:
    """Failing would be a lie: the program runs, as everybody sees without this (`state.observe`)."""
    record["status"] = "running"
    try:
        os.unlink(Entry.FIFO, dir_fd=entry.dirfd)
        entry.save(record)
    except StateError as error:
        log.warning(error.message)
    except OSError as error:
        log.warning(entry.unwritable(error).message)


def _run_start_hooks(entry: Entry, record: Record, declared: Hooks) -> None:
    """Run them in the container; its init is ended where one fails, for it shall not be started any more."""
    from sysvisor_runc.kernel import capability
    from sysvisor_runc.kernel.prctl import capget
    from sysvisor_runc.launch.inside import run_start_hooks
    from sysvisor_runc.plan.hooks import parse_hooks
    from sysvisor_runc.plan.process import process_plan
    from sysvisor_runc.plan.seccomp import compile_for
    from sysvisor_runc.state import process

    linux = record["spec"].get("linux") or {}
    in_userns = any(n["type"] == "user" for n in linux.get("namespaces") or ())
    held = (1 << capability.last_cap() + 1) - 1 if in_userns else capget()[1]
    identity = process_plan(record["spec"]["process"], held=held).identity
    init = process.open_init(record)
    try:
        seccomp = compile_for(linux, os.path.dirname(entry.path))
        run_start_hooks(parse_hooks(declared, "startContainer"), record, init, identity, seccomp)
    except BaseException:
        process.send_signal(init, 9)
        process.wait_exit(init)
        raise
    finally:
        os.close(init)


def _poststart(record: Record, declared: Hooks) -> None:
    from sysvisor_runc.launch import hooks
    from sysvisor_runc.plan.hooks import parse_hooks

    pid = record["initPid"]
    state = state_json(record["id"], record["ociVersion"], "running", pid, record["bundle"], record["annotations"])
    try:
        hooks.run_hooks(parse_hooks(declared, "poststart"), state)
    except LaunchError:
        _stop(record)
        raise


def _stop(record: Record) -> None:
    """End a container whose poststart hook failed (runtime.md, "Lifecycle"); `delete` removes it."""
    from sysvisor_runc.state import process

    try:
        init = process.open_init(record)
    except StateError:
        return  # it has ended by itself
    try:
        pidfd_send_signal(init, 9)
    except ProcessLookupError:
        pass
    finally:
        os.close(init)


def _start_and_await_execve(entry: Entry, fifo: int) -> None:
    """Write the byte and wait until init executes the program, or ends.

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
        if not poll.poll(_SOON):
            if descriptor() >= 0:
                poll.register(descriptor(), select.POLLIN)
            while reader not in dict(poll.poll()):
                check()
        left = os.read(reader, 1)
    finally:
        os.close(reader)
    if left.startswith(_START):
        raise StateError("cannot start a container that has stopped")

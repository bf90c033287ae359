"""`run`: create a container, start it, and unless detached wait for it and clean up."""

from __future__ import annotations

import os

from sysvisor_runc.cli.create import request_from
from sysvisor_runc.cli.fsagent import serve_fs_agent
from sysvisor_runc.cli.publish import publish
from sysvisor_runc.cli.systemd import connect
from sysvisor_runc.errors import NoSuchContainer, UsageError
from sysvisor_runc.launch import destroy
from sysvisor_runc.launch.create import create
from sysvisor_runc.launch.interrupt import hold_back
from sysvisor_runc.launch.release import release
from sysvisor_runc.launch.undo import UndoStack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.parse import Options
    from sysvisor_runc.launch.create import Created
    from sysvisor_runc.launch.notify import Proxy
    from sysvisor_runc.launch.request import Request
    from sysvisor_runc.state.supervision import Restart


# reboot(2) in a pid namespace ends its init by SIGINT (halt, power off) or SIGHUP (restart), neither of which anybody
# can send it otherwise (pid_namespaces(7)). 133 is what systemd-nspawn has units restart on.
_ENDS = {128 + 2: 0, 128 + 1: 133}


def run(options: Options) -> int:
    """Run the container; the exit code is its init's, 128+n where a signal ended it.

    A machine that was switched off has ended well: 0. One that wants to be started again is told by 133.
    """
    request = request_from(options)
    request.immediate = True
    request.detached = options.flag("detach")
    supervised = _is_supervised(options)
    request.keeps_console = supervised and not request.console_socket
    if not request.detached and not options.flag("no-subreaper"):
        from sysvisor_runc.kernel.prctl import PR_SET_CHILD_SUBREAPER, prctl

        prctl(PR_SET_CHILD_SUBREAPER, 1)
    hold_back()
    if options.given("restart") and not request.detached:
        from sysvisor_runc.launch.persist import persist

        return persist(_restart(options), lambda: _run_once(request, options))
    with UndoStack() as undo:
        created = create(request, undo)
        proxy = request.service.listen(created.entry, created.record) if request.service else None
        if request.detached:
            _detach(created, request, options, undo, proxy, supervised=supervised)
            return 0
        code = _attended(created, options, undo, proxy)
    if not options.flag("keep"):
        _clean_up(created, options)
    created.entry.close()
    return code


def _run_once(request: Request, options: Options) -> tuple[int, bool]:
    """One of several runs in the foreground: the exit code, and whether somebody has asked for the end."""
    from sysvisor_runc.state import supervision

    with UndoStack() as undo:
        created = create(request, undo)
        try:
            supervision.will_persist(created.entry)
        except OSError as error:
            raise created.entry.unwritable(error) from error
        proxy = request.service.listen(created.entry, created.record) if request.service else None
        code = _attended(created, options, undo, proxy)
    asked = created.child.asked or supervision.stop_asked(created.entry)
    deleted = not _clean_up(created, options)
    created.entry.close()
    return code, asked or deleted


def _is_supervised(options: Options) -> bool:
    """Whether the container is handed to a supervisor."""
    detached, without = options.flag("detach"), options.flag("no-supervisor")
    if options.given("restart-delay") and not options.given("restart"):
        raise UsageError("--restart-delay needs --restart")
    if options.given("restart") and not detached and options.flag("keep"):
        raise UsageError("--restart and --keep exclude each other, but for --detach")
    if options.given("restart") and detached and without:
        hint = "it is the supervisor that starts a detached container again"
        raise UsageError("--restart cannot be used with --no-supervisor", hint=hint)
    return detached and not without


def _detach(
    created: Created, request: Request, options: Options, undo: UndoStack, proxy: Proxy | None, *, supervised: bool
) -> None:
    """Start the container and leave it to itself or its supervisor."""
    if not supervised:
        _begin(created, options)
        if proxy:
            proxy.wait_ready(created.child)
        undo.keep()
        created.entry.close()
        return
    from sysvisor_runc.launch.supervised import begin, hand_over

    must = begin(created, request, _restart(options))
    release(created)
    if proxy:
        proxy.wait_ready(created.child)
    if not must:
        undo.keep()
    hand_over(request.root, request.container_id, created.child.pidfd, created.console, must=must)
    undo.keep()
    created.entry.close()


def _restart(options: Options) -> Restart | None:
    """The restart policy that was asked for."""
    text = options.text("restart")
    given = options.text("restart-delay")
    if text is None:
        return None
    from sysvisor_runc.cli.duration import seconds
    from sysvisor_runc.state.supervision import parse_policy

    delay = None if given is None else seconds(given)
    if delay is not None and delay < 0:
        raise UsageError(f"--restart-delay: {given!r} lies in the past")
    return parse_policy(text, delay, "--restart")


def _begin(created: Created, options: Options) -> None:
    """Start the container; a supervisor, if there is one, tells of that, and of its end."""
    release(created)
    publish(options, "start", {"pid": created.child.pid}, [created.child.pidfd])


def _attended(created: Created, options: Options, undo: UndoStack, proxy: Proxy | None) -> int:
    """Start the container with our signals going to it, and wait for its end."""
    from sysvisor_runc.launch import foreground

    signal_fd = foreground.forwarded_signals()
    if created.console >= 0:
        from sysvisor_runc.aio.foreground import relay

        code = relay(created.child, created.console, signal_fd, lambda: _begin(created, options), proxy)
    else:
        _begin(created, options)
        code = (proxy or foreground).wait_forwarding(created.child, signal_fd)
        os.close(signal_fd)
    undo.keep()
    created.child.close()
    return _ENDS.get(code, code) if "initKind" in created.record else code


def _clean_up(created: Created, options: Options) -> bool:
    """Delete the container; False where somebody else has."""
    try:
        with created.entry.lock():
            destroy.destroy(created.entry, created.record, connect, serve_fs_agent=serve_fs_agent)
    except NoSuchContainer:
        return False  # `delete --force` was faster
    publish(options, "delete", {"force": False})
    return True

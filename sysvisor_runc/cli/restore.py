"""`sysvisor-runc restore`: bring a container back from a checkpoint, and unless detached wait for it and clean up."""

from __future__ import annotations

import os

from sysvisor_runc.cli.checkpoint import take_common
from sysvisor_runc.cli.create import request_for
from sysvisor_runc.cli.publish import publish
from sysvisor_runc.cli.systemd import connect
from sysvisor_runc.criu.restore import RestoreOptions, restore
from sysvisor_runc.errors import NoSuchContainer
from sysvisor_runc.launch import destroy
from sysvisor_runc.launch.interrupt import hold_back
from sysvisor_runc.launch.undo import UndoStack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.parse import Options
    from sysvisor_runc.criu.restore import Restored


def run(options: Options) -> int:
    """Restore the container; the exit code is its init's, 128+n where a signal ended it."""
    request = request_for(options)
    request.console_socket = options.text("console-socket") or ""
    request.pid_file = options.text("pid-file") or ""
    request.no_pivot = options.flag("no-pivot")
    request.immediate = True
    request.detached = options.flag("detach")
    if not request.detached and not options.flag("no-subreaper"):
        from sysvisor_runc.kernel.prctl import PR_SET_CHILD_SUBREAPER, prctl

        prctl(PR_SET_CHILD_SUBREAPER, 1)
    hold_back()
    with UndoStack() as undo:
        restored = restore(request, undo, _wanted(options))
        publish(options, "start", {"pid": restored.child.pid, "restored": True}, [restored.child.pidfd])
        if request.detached:
            undo.keep()
            restored.entry.close()
            return 0
        restored.entry.unlock()
        code = _attended(restored)
        undo.keep()
    try:
        with restored.entry.lock():
            destroy.destroy(restored.entry, restored.record, connect, serve_fs_agent=request.serve_fs_agent)
    except NoSuchContainer:
        pass  # `delete --force` was faster
    return code


def _wanted(options: Options) -> RestoreOptions:
    wanted = RestoreOptions(options.globals.criu, options.text("image-path") or "", options.text("work-path") or "")
    take_common(wanted, options)
    wanted.lsm_profile = options.text("lsm-profile") or ""
    wanted.lsm_mount_context = options.text("lsm-mount-context") or ""
    return wanted


def _attended(restored: Restored) -> int:
    from sysvisor_runc.launch import foreground

    signal_fd = foreground.forwarded_signals()
    if restored.console >= 0:
        from sysvisor_runc.aio.foreground import relay

        return relay(restored.child, restored.console, signal_fd)
    code = foreground.wait_forwarding(restored.child, signal_fd)
    os.close(signal_fd)
    return code

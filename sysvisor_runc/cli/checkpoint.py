"""`sysvisor-runc checkpoint`: save a running container to disk, with criu."""

from __future__ import annotations

from sysvisor_runc.cli.fsagent import serve_fs_agent
from sysvisor_runc.cli.systemd import connect
from sysvisor_runc.criu.checkpoint import CheckpointOptions, checkpoint
from sysvisor_runc.criu.options import add_empty
from sysvisor_runc.errors import StateError, UsageError
from sysvisor_runc.launch import destroy
from sysvisor_runc.launch.interrupt import hold_back
from sysvisor_runc.state.observe import observe
from sysvisor_runc.state.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.parse import Options
    from sysvisor_runc.criu.options import CriuOptions


def run(options: Options) -> int:
    """Save it; afterwards it is gone, unless it shall run on."""
    wanted = _wanted(options)
    hold_back()
    with Store(options.globals.root).open(options.args[0]) as entry, entry.lock():
        record = entry.load()
        status = observe(entry, record)
        if status not in ("running", "paused"):
            raise StateError(f"container cannot be checkpointed in {status} state")
        checkpoint(record, wanted)
        if not (wanted.leave_running or wanted.pre_dump):
            destroy.destroy(entry, record, connect, force=True, serve_fs_agent=serve_fs_agent)
    return 0


def _wanted(options: Options) -> CheckpointOptions:
    wanted = CheckpointOptions(options.globals.criu, options.text("image-path") or "", options.text("work-path") or "")
    take_common(wanted, options)
    wanted.parent = options.text("parent-path") or ""
    wanted.leave_running = options.flag("leave-running")
    wanted.tcp_skip_in_flight = options.flag("tcp-skip-in-flight")
    wanted.link_remap = options.flag("link-remap")
    wanted.pre_dump = options.flag("pre-dump")
    status_fd = options.number("status-fd")
    wanted.status_fd = -1 if status_fd is None else status_fd
    server = options.text("page-server")
    if server:
        address, _, port = server.rpartition(":")
        if not address or not port.isdecimal():
            raise UsageError(f"--page-server {server!r}: must be ADDRESS:PORT")
        wanted.page_server = address.strip("[]"), int(port)
    return wanted


def take_common(wanted: CriuOptions, options: Options) -> None:
    """Take in the flags that checkpoint and restore share. Raises UsageError."""
    wanted.cgroups = options.text("manage-cgroups-mode") or "default"
    wanted.tcp_established = options.flag("tcp-established")
    wanted.ext_unix_sk = options.flag("ext-unix-sk")
    wanted.shell_job = options.flag("shell-job")
    wanted.lazy_pages = options.flag("lazy-pages")
    wanted.file_locks = options.flag("file-locks")
    wanted.auto_dedup = options.flag("auto-dedup")
    add_empty(wanted, options.texts("empty-ns"))

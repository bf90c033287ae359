"""`create`: make a container whose init waits for `start`."""

from __future__ import annotations

import os
import sys

from sysvisor_runc.cli.fsagent import serve_fs_agent
from sysvisor_runc.cli.systemd import connect
from sysvisor_runc.launch.create import create
from sysvisor_runc.launch.interrupt import hold_back
from sysvisor_runc.launch.request import Request
from sysvisor_runc.launch.undo import UndoStack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.cli.parse import Options


def run(options: Options) -> int:
    """Create the container and return once it waits."""
    request = request_from(options)
    hold_back()
    with UndoStack() as undo:
        created = create(request, undo)
        if created.fs is not None:
            created.fs.keep()
        undo.keep()
    created.entry.close()
    return 0


def request_for(options: Options) -> Request:
    """What the global flags and those of every launch ask for."""
    shared = options.globals
    request = Request(
        shared.root,
        options.args[0],
        options.text("bundle") or os.getcwd(),
        {
            "systemdCgroup": shared.systemd_cgroup,
            "noSysvisorFs": shared.no_sysvisor_fs,
            "noSyscont": shared.no_syscont,
            "rootless": shared.rootless is True,
            "noPivot": options.flag("no-pivot"),
        },
    )
    request.syscont = not shared.no_syscont
    request.only_syscont = shared.only_syscont
    request.systemd_cgroup = shared.systemd_cgroup
    request.rootless = shared.rootless
    request.connect_systemd = connect
    request.move_devices = _move_devices
    # An ordinary user's containers do without: the daemon mounts file systems as root.
    request.fs = request.syscont and not shared.no_sysvisor_fs and os.geteuid() == 0
    request.fs_program = os.path.join(os.path.dirname(os.path.realpath(sys.argv[0])), "sysvisor-fs")
    request.serve_fs_agent = serve_fs_agent
    return request


def request_from(options: Options) -> Request:
    """The request for `create` and `run`, whose flags are the same."""
    request = request_for(options)
    request.flags["noNewKeyring"] = options.flag("no-new-keyring")
    request.console_socket = options.text("console-socket") or ""
    request.pidfd_socket = options.text("pidfd-socket") or ""
    request.pid_file = options.text("pid-file") or ""
    request.no_pivot = options.flag("no-pivot")
    request.no_new_keyring = options.flag("no-new-keyring")
    request.cpuset_from_quota = options.flag("cpuset-from-quota")
    request.preserve_fds = options.number("preserve-fds") or 0
    if "NOTIFY_SOCKET" in os.environ or "LISTEN_PID" in os.environ:
        from sysvisor_runc.launch.service import Service

        request.service = Service()
        request.preserve_fds += request.service.sockets
    request.uid_shift = options.text("uid-shift") or "idmap"
    if options.texts("set-credential") or options.texts("load-credential"):
        from sysvisor_runc.launch.credentials import read_credentials

        request.credentials = read_credentials(options.texts("set-credential"), options.texts("load-credential"))
    return request


def _move_devices(devices: dict[str, str], pid: int) -> Callable[[], object]:
    from sysvisor_runc.aio.netdev import move_devices

    return move_devices(devices, pid)

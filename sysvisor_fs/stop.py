"""`sysvisor-fs stop`: end the daemon, and with --all everything that it has set up."""

from __future__ import annotations

import os
import shutil
import signal
import time
from typing import TYPE_CHECKING

from sysvisor_fs import keeper as holders
from sysvisor_fs import rundir
from sysvisor_fs.fuse import mount
from sysvisor_runc.errors import SysvisorError, UsageError

if TYPE_CHECKING:
    from sysvisor_fs.options import Options

_PATIENCE = 10.0


def stop(options: Options) -> int:
    """End what serves the run directory. It is no failure that nothing does."""
    if options.words[1:] not in ([], ["--all"]):
        raise UsageError(f"stop: unknown argument {' '.join(options.words[1:])!r}", hint="--all is the only one")
    if not os.path.isdir(options.run_dir):
        return 0
    _end_daemon(options.run_dir)
    if options.words[1:]:
        _end_everything(options, _lock(options.run_dir))
    return 0


def _end_daemon(run_dir: str) -> None:
    pid = rundir.running(run_dir)
    if not pid:
        return
    try:
        pidfd = os.pidfd_open(pid)
        if rundir.running(run_dir) == pid:  # still: so the descriptor is that daemon's
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        os.close(pidfd)
    except ProcessLookupError:
        pass
    end = time.monotonic() + _PATIENCE
    while rundir.running(run_dir) == pid:
        if time.monotonic() > end:
            raise SysvisorError(f"the daemon, process {pid}, does not end", hint=f"kill -9 {pid}, then stop again")
        time.sleep(0.02)


def _lock(run_dir: str) -> int:
    """Take the daemon's place: one that the holder has just started in place of a dead one is ended as well."""
    for _ in range(3):
        try:
            return rundir.lock(run_dir, 0.2)
        except SysvisorError:
            _end_daemon(run_dir)
    return rundir.lock(run_dir, _PATIENCE)


def _end_everything(options: Options, held: int) -> None:
    holder = holders.connect(options.run_dir)
    if holder is not None:
        holder.serve([])
        for name in mount.mounted_below(options.mountpoint):
            mount.unmount(f"{options.mountpoint}/{name}")
        holder.quit()
    shutil.rmtree(f"{options.run_dir}/fs", ignore_errors=True)
    os.close(held)

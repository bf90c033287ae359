"""Take a container down: kill what is left of it, remove its cgroup, run the poststop hooks, forget it."""

from __future__ import annotations

import os

from sysvisor_runc.cgroup.manager import Manager
from sysvisor_runc.errors import CgroupError, SysvisorError
from sysvisor_runc.launch.ocistate import state_json
from sysvisor_runc.launch.steps import reached
from sysvisor_runc.state import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.systemd import Connect
    from sysvisor_runc.launch.fslink import Serve
    from sysvisor_runc.state.record import Record
    from sysvisor_runc.state.store import Entry

_SIGKILL = 9
# How long a killed init may take to die before that is an error: the kernel may be writing out its memory.
_PATIENCE = 10.0


def manager_of(record: Record) -> Manager:
    """The manager of a recorded container's cgroups."""
    cgroup = record["cgroup"]
    return Manager(cgroup["paths"], delegated=bool(cgroup["leaf"]))


def kill_init(record: Record) -> None:
    """SIGKILL init, thawing the container first (a v1-frozen task cannot die), and wait until it is gone.

    Raises:
        SysvisorError: it does not die.
    """
    try:
        pidfd = process.open_init(record)
    except process.NotRunning:
        return
    reached("delete-init")
    try:
        manager_of(record).thaw(recursive=True)
        process.send_signal(pidfd, _SIGKILL)
        if not process.wait_exit(pidfd, _PATIENCE):
            raise SysvisorError(f"container init {record['initPid']} does not die", hint="look for it in state D")
    except process.NotRunning:
        return
    finally:
        os.close(pidfd)


def destroy(
    entry: Entry, record: Record, connect: Connect, *, force: bool = False, serve_fs_agent: Serve | None = None
) -> None:
    """Remove all that belongs to a container whose init has ended; `connect` reaches systemd if it keeps the cgroup.

    `serve_fs_agent` makes calls of sysvisor-fs (see `launch.fslink`).

    With `force` whoever else is in its cgroup is killed.

    Raises:
        SysvisorError: something could not be removed; what is left can be deleted again.
    """
    dismantle(record, connect, force=force)
    if "sysvisorFs" in record:
        from sysvisor_runc.launch.fsend import unregister

        unregister(record["sysvisorFs"], record["id"], os.path.dirname(entry.path), serve_fs_agent)
    reached("delete-ids")
    if record["subid"] is not None:
        from sysvisor_runc.state import subid

        subid.free(entry.path, record["subid"])
    reached("delete-poststop")
    try:
        poststop(record)
    finally:  # interrupted or not, nothing else is left of it
        reached("delete-state")
        entry.remove()


def dismantle(record: Record, connect: Connect, *, force: bool) -> None:
    """Remove what a container whose init has ended has outside its directory, but for its ids; see `destroy`."""
    reached("delete-cgroup")
    manager = manager_of(record)
    if _shares_pid_namespace(record):
        # Init's end does not end the others: they would keep the cgroup busy.
        manager.kill_all(_SIGKILL)
    if record["cgroup"]["driver"] == "systemd":
        from sysvisor_runc.launch.unit import recorded_unit, stop_unit

        stop_unit(recorded_unit(record["cgroup"], connect))
    try:
        manager.remove()
    except CgroupError:
        if not force:
            raise
        manager.kill_all(_SIGKILL)
        manager.remove()
    intel_rdt = record.get("intelRdt")
    if intel_rdt:
        from sysvisor_runc.launch.rdt import remove_rdt

        remove_rdt(intel_rdt)
    if "overlayWork" in record:
        from sysvisor_runc.launch.overlay import remove_work

        remove_work(record["overlayWork"])


def destroy_unrecorded(entry: Entry, connect: Connect, serve_fs_agent: Serve | None = None) -> None:
    """Remove what a killed `create` left of a container without a record: its cgroups, ids and directory."""
    from sysvisor_runc.launch.leftovers import remove_leftovers

    remove_leftovers(entry, connect, serve_fs_agent)
    entry.remove()


def _shares_pid_namespace(record: Record) -> bool:
    namespaces = (record["spec"].get("linux") or {}).get("namespaces") or ()
    return not any(n["type"] == "pid" and not n.get("path") for n in namespaces)


def poststop(record: Record) -> None:
    """Run the hooks for a container that has stopped; that one fails is a warning."""
    declared = record["spec"].get("hooks") or {}
    if not declared.get("poststop"):
        return
    from sysvisor_runc.launch import hooks
    from sysvisor_runc.plan.hooks import parse_hooks

    state = state_json(record["id"], record["ociVersion"], "stopped", 0, record["bundle"], record["annotations"])
    hooks.run_hooks_tolerantly(parse_hooks(declared, "poststop"), state)

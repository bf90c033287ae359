"""The end of a container that sysvisor-fs serves: see that it is forgotten there."""

from __future__ import annotations

from sysvisor_runc import log
from sysvisor_runc.contract import names
from sysvisor_runc.errors import SysvisorError
from sysvisor_runc.launch import fscontrol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.launch.fslink import Serve
    from sysvisor_runc.state.record import FsRecord


def unregister(record: FsRecord, container_id: str, root: str, serve: Serve | None) -> None:
    """Our own daemon sees by itself that init has ended, and is only asked whether it has; others are told.

    Told by the supervisor of the state root, which goes on trying, or by an agent that is `serve` if given. Never
    fails: a container is deleted whether or not the daemon is well, and a daemon that is gone serves nothing.
    """
    try:
        if record["runDir"]:
            _settle(record["runDir"], container_id)
            return
        from sysvisor_runc.launch.fslink import open_link

        link = open_link(root, serve)
        try:
            link.call({"call": "unregister", "target": record["target"], "id": container_id, "insist": True})
        finally:
            link.close()
    except SysvisorError as error:
        log.warning(f"{container_id}: {error.message}")


def unregister_noted(target: str, container_id: str, root: str, serve: Serve | None) -> None:
    """The same for a launch that was killed, which has noted no more than the address."""
    path = target.removeprefix("unix:")
    own = path != target and path.endswith(f"/{names.GRPC_SOCKET}")
    directory = path.removesuffix(f"/{names.GRPC_SOCKET}") if own else ""
    unregister({"target": target, "runDir": directory}, container_id, root, serve)


def _settle(directory: str, container_id: str) -> None:
    """See that the daemon forgets it; one that is not there does so: its successor looks who is dead before it serves.

    Raises:
        LaunchError: it refuses, or does not answer.
    """
    daemon = fscontrol.connect(directory)
    if daemon is None:
        return
    try:
        answer, _ = daemon.ask({"op": "settle", "id": container_id})
        if answer.get("gone") is not True:  # its launch was killed before init was known
            daemon.ask({"op": "unregister", "id": container_id})
    except fscontrol.Refusal as refusal:
        if refusal.code != "NOT_FOUND":  # else it was quicker
            raise
    finally:
        daemon.close()

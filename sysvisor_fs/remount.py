"""`sysvisor-fs remount`: give containers their files back whose connection to the kernel was lost.

The daemon makes a new connection; what is mounted in the container is replaced here (`places`), since that takes a
process with one thread. Doing it again does no harm: what is well is left alone.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from sysvisor_fs import origins, packets, places
from sysvisor_runc import log
from sysvisor_runc.contract.names import CONTROL_SOCKET
from sysvisor_runc.errors import SysvisorError, UsageError, reason

if TYPE_CHECKING:
    from sysvisor_fs.options import Options

_PATIENCE = 10.0


def remount(options: Options) -> int:
    """Do it for the containers that are named, or for all that the daemon serves."""
    words = options.words[1:]
    if not words or any(word.startswith("-") and word != "--all" for word in words):
        raise UsageError("remount: expected the ids of containers, or --all")
    with _connect(options.run_dir) as link:
        for container_id in _all(link) if "--all" in words else words:
            _remount(link, container_id)
    return 0


def _connect(run_dir: str) -> socket.socket:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    link.settimeout(_PATIENCE)
    path = f"{run_dir}/{CONTROL_SOCKET}"
    try:
        link.connect(path)
    except OSError as error:
        link.close()
        if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
            raise SysvisorError(f"no sysvisor-fs serves {run_dir!r}", hint="start it: sysvisor-fs") from error
        raise SysvisorError(f"connect to {path!r}: {reason(error)}") from error
    return link


def _ask(link: socket.socket, op: str, **request: object) -> tuple[packets.Message, list[int]]:
    try:
        packets.send(link, {"op": op, **request})
        answer, descriptors = packets.receive(link)
    except (OSError, EOFError, ValueError) as error:
        text = reason(error) if isinstance(error, OSError) else str(error)
        raise SysvisorError(f"sysvisor-fs does not answer: {text}") from error
    if "error" in answer:
        hint = (
            "`sysvisor-fs status` lists the containers that are served" if answer.get("code") == "NOT_FOUND" else None
        )
        raise SysvisorError(f"{request.get('id') or op}: {answer['error']}", hint=hint)
    return answer, descriptors


def _all(link: socket.socket) -> list[str]:
    answer, _ = _ask(link, "served")
    found = answer["ids"]
    assert isinstance(found, list)
    return [str(one) for one in found]


def _remount(link: socket.socket, container_id: str) -> None:
    answer, _ = _ask(link, "remount", id=container_id)
    pid, start = answer["pid"], answer["start"]
    assert isinstance(pid, int)
    assert isinstance(start, int)
    trees: dict[str, int] = {}
    try:
        _check(pid, start)
        wanted = places.served(places.read(pid))
        served, descriptors = _ask(link, "trees", id=container_id, paths=[path.lstrip("/") for path in wanted])
        indexes = served["served"]
        assert isinstance(indexes, list)
        trees = dict(zip((wanted[int(index)] for index in indexes), descriptors, strict=True))
        if not trees:
            return
        device = os.fstat(descriptors[0]).st_dev
        count, missing = places.replace(pid, trees, device, lambda: _check(pid, start))
    except ProcessLookupError:
        raise SysvisorError(f"{container_id}: its init has ended") from None
    finally:
        for fd in trees.values():
            os.close(fd)
    if count:
        log.info(f"container {container_id}: {count} mounts are there again")
    for point in missing:
        log.warning(f"container {container_id}: {point}: what was mounted there is lost with the mount that it lay on")


def _check(pid: int, start: int) -> None:
    """That a process is still the one that started then."""
    if origins.start_ticks(pid) != start:
        raise ProcessLookupError(3, os.strerror(3))

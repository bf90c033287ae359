"""Save a running container to disk with criu, and end it unless it shall run on."""

from __future__ import annotations

import os

from sysvisor_runc.criu import mounts
from sysvisor_runc.criu.hierarchy import KeptOptions
from sysvisor_runc.criu.options import CriuOptions, explain, open_directory
from sysvisor_runc.criu.place import HANDED_IN
from sysvisor_runc.criu.rpc import criu_pb2 as messages
from sysvisor_runc.criu.session import CriuError, Session, require_features, version
from sysvisor_runc.criu.streams import streams
from sysvisor_runc.errors import SysvisorError, reason
from sysvisor_runc.jsonlight import dumps
from sysvisor_runc.launch.interrupt import Interrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.state.record import Record

LOG = "dump.log"
# What standard input, output and error were, beside the images: restore hands in its own for those that are pipes.
DESCRIPTORS = "descriptors.json"
# The range of ids that a system container had: the images hold them as the host's.
IDS = "ids.json"
# Whether sysvisor-fs served it: its files lead out of the container, to be handed in by whoever restores.
SERVED = "sysvisor-fs.json"
_NAMESPACE_KEYS = {"network": ("net", "extRootNetNS"), "pid": ("pid", "extRootPidNS")}


class CheckpointOptions(CriuOptions):
    """What `checkpoint` asks for beside that. `parent` is relative to `images`; `page_server` is (address, port)."""

    def __init__(self, program: str, images: str, work: str) -> None:
        super().__init__(program, images, work)
        self.parent = ""
        self.leave_running = False
        self.tcp_skip_in_flight = False
        self.link_remap = False
        self.pre_dump = False
        self.status_fd = -1
        self.page_server: tuple[str, int] | None = None


def checkpoint(record: Record, options: CheckpointOptions) -> None:
    """Save the container of `record`, whose lock the caller holds.

    Raises:
        CriuError: criu refuses; the container runs on.
        Interrupted: a signal came first; the container runs on.
        SysvisorError: a directory or descriptor cannot be used.
    """
    version(options.program)
    _refuse(record, options)
    if options.pre_dump:
        require_features(options.program, mem_track=True)
    if options.lazy_pages:
        require_features(options.program, lazy_pages=True)
        _check_status_fd(options.status_fd)
    images = open_directory(options.images, make=True)
    work = open_directory(options.work, make=True)
    try:
        _check_parent(options)
        request = messages.Request(
            type=messages.PRE_DUMP if options.pre_dump else messages.DUMP,
            opts=_message(record, options, images, work),
        )
        if not options.pre_dump:
            descriptors = streams(record["initPid"])
            request.opts.external.extend(name for name in descriptors if name.startswith("file["))
            _write(DESCRIPTORS, descriptors, images)
            _write(SERVED, "sysvisorFs" in record, images)
            if record["subid"] is not None:
                _write(IDS, record["subid"], images)
        _dump(request, options)
        if not (options.pre_dump or options.leave_running or options.tcp_established):
            _unlock_network(record)
    finally:
        os.close(images)
        os.close(work)


def _dump(request: messages.Request, options: CheckpointOptions) -> None:
    def notified(step: str, pid: int, fds: list[int]) -> None:
        if step == "status-ready" and options.status_fd >= 0:
            os.write(options.status_fd, b"\0")
            os.close(options.status_fd)
            options.status_fd = -1

    # Ctrl-C at a terminal is for us alone: criu would leave the container frozen. One that serves lazy pages has
    # ended the container, and is to be ended so.
    session = Session(options.program, prepare=int if options.lazy_pages else _leave_process_group)
    try:
        with KeptOptions():
            try:
                session.call(request, notified)
            except Interrupted:
                session.close()
                raise
    except CriuError as error:
        session.close()
        raise explain(error, options.work, LOG) from error
    # A criu that has pre-dumped waits for the next round, and takes the end of the conversation for a failure.
    if session.close() and not options.pre_dump:
        raise explain(CriuError("criu failed"), options.work, LOG)


def _leave_process_group() -> None:
    os.setpgid(0, 0)


def _message(record: Record, options: CheckpointOptions, images_fd: int, work_fd: int) -> messages.Options:
    message = options.message(record["spec"], images_fd, LOG)
    message.work_dir_fd = work_fd
    message.pid = record["initPid"]
    message.root = record["rootfs"]
    message.leave_running = options.leave_running
    message.tcp_skip_in_flight = options.tcp_skip_in_flight
    message.link_remap = options.link_remap
    paths = record["cgroup"]["paths"]
    freezer = paths.get("freezer") or (paths.get("unified") if len(paths) == 1 else None)
    if freezer:
        message.freeze_cgroup = freezer
    if options.parent:
        message.parent_img = options.parent
        message.track_mem = True
    if options.page_server is not None:
        message.ps.address, message.ps.port = options.page_server
    _add_namespaces(message, record)
    if not options.pre_dump:
        linux = record["spec"].get("linux") or {}
        found = mounts.external(
            mounts.read(f"/proc/{record['initPid']}/mountinfo"),
            linux.get("maskedPaths") or [],
            HANDED_IN if record["syscont"] else frozenset(),
            own_cgroups=any(n["type"] == "cgroup" for n in linux.get("namespaces") or ()),
        )
        for place, name in found.items():
            message.ext_mnt.add(key=place, val=name)
    return message


def _add_namespaces(message: messages.Options, record: Record) -> None:
    """Namespaces that were given by path are not the container's: they are found again by a name."""
    for entry in (record["spec"].get("linux") or {}).get("namespaces") or ():
        path = entry.get("path")
        if path and entry["type"] in _NAMESPACE_KEYS:
            kind, key = _NAMESPACE_KEYS[entry["type"]]
            message.external.append(f"{kind}[{os.stat(path).st_ino}]:{key}")


def _unlock_network(record: Record) -> None:
    """Open to others what criu has locked, unless it has saved connections: the kernel, which knows them no more, would
    end them."""
    for entry in (record["spec"].get("linux") or {}).get("namespaces") or ():
        if entry["type"] == "network" and entry.get("path"):
            from sysvisor_runc.criu.network import unlock

            unlock(entry["path"])


def _refuse(record: Record, options: CheckpointOptions) -> None:
    """What could be saved, and never be restored."""
    kinds = {entry["type"] for entry in (record["spec"].get("linux") or {}).get("namespaces") or ()}
    if options.cgroups == "ignore" and kinds >= {"user", "cgroup"}:
        raise SysvisorError(
            "a container with a user namespace cannot be checkpointed with --manage-cgroups-mode ignore: "
            "its cgroup namespace would not be restored",
            hint="leave the flag out, or say soft or full",
        )


def _check_parent(options: CheckpointOptions) -> None:
    if not options.parent:
        return
    if os.path.isabs(options.parent):
        raise SysvisorError("--parent-path must be relative", hint="it counts from --image-path")
    path = os.path.join(options.images, options.parent)
    if not os.path.isdir(path):
        text = "not a directory" if os.path.exists(path) else "no such file or directory"
        raise SysvisorError(f"invalid --parent-path: {path!r}: {text}")


def _check_status_fd(fd: int) -> None:
    import fcntl

    if fd < 0:
        return
    try:
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    except OSError as error:
        raise SysvisorError(f"invalid --status-fd argument {fd}: {reason(error)}") from error
    if flags & os.O_ACCMODE == os.O_RDONLY:
        raise SysvisorError(f"invalid --status-fd argument {fd}: not writable")


def _write(name: str, value: object, images: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=images)
    try:
        os.write(fd, dumps(value).encode("utf-8", "surrogateescape"))
    finally:
        os.close(fd)

"""What the command line asks of a launch."""

from __future__ import annotations

from sysvisor_runc.errors import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.cgroup.systemd import Connect, ServiceManager
    from sysvisor_runc.launch.service import Service
    from sysvisor_runc.spec.types import Spec
    from sysvisor_runc.state.record import Flags, Record, SubidRecord
    from sysvisor_runc.state.store import Entry


def _cannot_move(devices: dict[str, str], pid: int) -> Callable[[], object]:
    raise LaunchError("linux.netDevices: this launcher cannot move network devices")


def _cannot_connect(user: bool) -> ServiceManager:
    raise LaunchError("this launcher cannot talk to systemd")


class Again:
    """A container that is started anew in its own place.

    Attributes:
        entry: its directory, whose lock is held.
        spec: its configuration before conversion.
        record: of its last run.
    """

    __slots__ = ("entry", "record", "spec")

    def __init__(self, entry: Entry, spec: Spec, record: Record) -> None:
        self.entry = entry
        self.spec = spec
        self.record = record


class Request:
    """What the command line asks for.

    Attributes:
        again: what is to be started anew; None: a new container.
        detached: nobody will relay a terminal, so one needs `console_socket`, unless a supervisor `keeps_console`.
        immediate: start without waiting for `start` (`run`).
        connect_systemd: opens a connection to the machine's service manager or (True) the caller's own; aio's as well.
        move_devices: moves network devices (host name to name inside) into the namespace of a pid and gives back what
            takes them back; aio's, which launch may not import.
        fs: with sysvisor-fs, whose program is at `fs_program`; `serve_fs_agent` makes the calls, in a process that is
            forked for it, that come in at a descriptor; aio's as well, None: only a supervisor makes them.
        flags: the global flags to store with the container.
        service: what the service manager that started us has for the container, if one did.
        credentials: name to data, for a system container's init.
        cpuset_from_quota: narrow the cpuset to as many CPUs as the quota is worth.
        subid: the range of ids that it must be, for a restore; None for any.
        uid_shift: "idmap", "chown" or "none".
    """

    __slots__ = (
        "again",
        "bundle",
        "connect_systemd",
        "console_socket",
        "container_id",
        "cpuset_from_quota",
        "credentials",
        "detached",
        "flags",
        "fs",
        "fs_program",
        "immediate",
        "keeps_console",
        "move_devices",
        "no_new_keyring",
        "no_pivot",
        "only_syscont",
        "pid_file",
        "pidfd_socket",
        "preserve_fds",
        "root",
        "rootless",
        "serve_fs_agent",
        "service",
        "subid",
        "syscont",
        "systemd_cgroup",
        "uid_shift",
    )

    def __init__(self, root: str, container_id: str, bundle: str, flags: Flags) -> None:
        self.root = root
        self.container_id = container_id
        self.bundle = bundle
        self.flags = flags
        self.again: Again | None = None
        self.detached = True
        self.keeps_console = False
        self.immediate = False
        self.move_devices: Callable[[dict[str, str], int], Callable[[], object]] = _cannot_move
        self.console_socket = ""
        self.pidfd_socket = ""
        self.pid_file = ""
        self.no_pivot = False
        self.no_new_keyring = False
        self.preserve_fds = 0
        self.service: Service | None = None
        self.syscont = True
        self.only_syscont = False
        self.fs = False
        self.fs_program = ""
        self.serve_fs_agent: Callable[[int], None] | None = None
        self.systemd_cgroup = False
        self.connect_systemd: Connect = _cannot_connect
        self.rootless: bool | None = None
        self.credentials: dict[str, bytes] = {}
        self.subid: SubidRecord | None = None
        self.uid_shift = "idmap"
        self.cpuset_from_quota = False

"""What the service manager that started us has for a container: its ear, and sockets. Loaded where there is one."""

from __future__ import annotations

import os

from sysvisor_runc.errors import LaunchError
from sysvisor_runc.kernel import sd_notify
from sysvisor_runc.launch import notify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Spec
    from sysvisor_runc.state.record import Record
    from sysvisor_runc.state.store import Entry

_VARIABLES = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
_FIRST = 3


class Service:
    """What a container gets as the service of a manager.

    Attributes:
        address: where the manager listens, "" where it does not.
        environment: variables for its init.
        sockets: how many descriptors from 3 on it is given.
    """

    __slots__ = ("address", "environment", "sockets")

    def __init__(self) -> None:
        self.environment = activation()
        self.sockets = int(self.environment.get("LISTEN_FDS", "0"))
        self.address = sd_notify.address()
        if self.address:
            self.environment["NOTIFY_SOCKET"] = f"{notify.INSIDE}/{notify.SOCKET}"

    def prepare(self, spec: Spec, entry: Entry, *, detached: bool) -> Spec:
        """The spec with what belongs to this start alone, which no record and no `exec` shall have.

        Raises:
            StateError: the directory of the socket cannot be made.
        """
        if self.address and not detached and sd_notify.watchdog_usec():
            # Any process in there may answer it: to the manager it is us who speak.
            self.environment["WATCHDOG_USEC"] = str(sd_notify.watchdog_usec())
        process = spec["process"]
        env = [item for item in process.get("env") or () if item.partition("=")[0] not in self.environment]
        env += [f"{name}={value}" for name, value in self.environment.items()]
        spec = {**spec, "process": {**process, "env": env}}
        if not self.address:
            return spec
        notify.make_directory(entry)
        return notify.with_mount(spec, entry)

    def listen(self, entry: Entry, record: Record) -> notify.Proxy | None:
        """A proxy for what the container says to the manager, if one listens."""
        return notify.listen(entry, self.address, record) if self.address else None


def activation() -> dict[str, str]:
    """The variables of socket activation for a container's init, empty where none is meant for us (sd_listen_fds(3)).

    $LISTEN_PID says for whom it is, and is the init's in the container. Its sockets go before those of --preserve-fds.

    Raises:
        LaunchError: $LISTEN_FDS is no number, or counts a descriptor that we were not given.
    """
    given = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    count = given.get("LISTEN_FDS", "0")
    if given.get("LISTEN_PID") != str(os.getpid()) or count == "0":
        return {}
    if not (count.isascii() and count.isdigit() and len(count) < 6):
        raise LaunchError(f"LISTEN_FDS: {count!r} is not a number of descriptors")
    for fd in range(_FIRST, _FIRST + int(count)):
        try:
            # What we were given has no close-on-exec: what has is a descriptor of ours.
            ours = not os.get_inheritable(fd)
        except OSError:
            ours = True
        if ours:
            raise LaunchError(
                f"LISTEN_FDS={count}: descriptor {fd} is not open",
                hint="unset LISTEN_PID if it is not for the container",
            )
    return {**given, "LISTEN_PID": "1"}

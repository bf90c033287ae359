"""What the daemon's outward half (control socket, gateway, metrics) asks of its registry, and what calls are called.

The registry is called on the event loop and answers within milliseconds. Its failures are the exceptions below,
ValueError for an argument that is none, and OSError for what the kernel refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# The methods of the service, and what they are on the control socket (`calls`).
CALLS = {
    "GetMountpoint": "mountpoint",
    "ContainerPreRegistration": "preregister",
    "ContainerRegistration": "register",
    "ContainerUpdate": "update",
    "ContainerUnregistration": "unregister",
}


class AlreadyRegistered(Exception):
    """A container of this id is served already."""


class NotRegistered(Exception):
    """No container of this id is served."""


if TYPE_CHECKING:
    from typing import Protocol, TypedDict

    Ids = tuple[int, int]  # first, size

    class ContainerStatus(TypedDict):
        """One container: `initPid` 0 before its registration, `requests` answered for it."""

        id: str
        initPid: int
        requests: int

    class FileStatus(TypedDict):
        """One path for all containers together: how often, how long in total and at most, in seconds."""

        path: str
        requests: int
        seconds: float
        slowest: float

    class Status(TypedDict):
        """The daemon at a moment: `started` and all times in seconds, the former since the epoch."""

        pid: int
        started: float
        requests: int
        containers: list[ContainerStatus]
        files: list[FileStatus]

    class DaemonStatus(Status):
        """The same, and the pid of the gateway, 0 while there is none."""

        gatewayPid: int

    class Registry(Protocol):
        """The containers that the daemon serves."""

        mountpoint: str

        # Have a tree for it; NotRegistered where `netns` cannot be read.
        def pre_register(self, container_id: str, netns: str = "") -> None: ...
        # Learn who it is; pre-registers it where nobody did. ProcessLookupError: init has ended.
        def register(
            self,
            container_id: str,
            *,
            init_pid: int,
            uid: Ids,
            gid: Ids,
            proc_ro_paths: tuple[str, ...] = (),
            proc_mask_paths: tuple[str, ...] = (),
            netns: str = "",
        ) -> None: ...
        def update(self, container_id: str, ctime_ns: int) -> None: ...
        def unregister(self, container_id: str) -> None: ...
        # Detached clones of these paths below its tree, the caller's to close. FileNotFoundError names one not there.
        def trees(self, container_id: str, paths: list[str]) -> list[int]: ...
        # Whether it is not known (any more): one whose init has ended is forgotten now.
        def settle(self, container_id: str) -> bool: ...
        # Have a connection for it that works, if the kernel has ended the one there was; init's pid and its start.
        def remount(self, container_id: str) -> tuple[int, int]: ...
        # The ids of those that are registered; who init of one is, 0 where it is not.
        def served(self) -> list[str]: ...
        def init_of(self, container_id: str) -> int: ...
        def status(self) -> Status: ...

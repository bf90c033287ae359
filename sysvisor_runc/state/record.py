"""What is stored about one container: the shape of `state.json` and its constructor.

At run time a record is a plain dict, since `typing` would cost more than reading the file; the types are for the
checker. Readers ignore fields they do not know, so that an older command can read what a newer one wrote.
"""

from __future__ import annotations

import os
import time

# Raised only when an older reader would act wrongly on what a newer writer stores; new fields alone do not need it.
VERSION = 1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, NotRequired, TypedDict

    from sysvisor_runc.spec.types import Spec

    class CgroupRecord(TypedDict):
        """Where the container's processes live.

        `paths` maps a v1 controller, or "unified" for the v2 hierarchy, to the absolute path of the cgroup that holds
        the limits; `leaf` is the child of it that the processes are in, "" where there is none. `unit` is the systemd
        driver's, and `userUnit` whether a user's own service manager has it.
        """

        driver: Literal["cgroupfs", "systemd", "none"]
        paths: dict[str, str]
        leaf: str
        unit: NotRequired[str]
        userUnit: NotRequired[bool]

    class SubidRecord(TypedDict):
        """The host ids that belong to this container alone: `size` user ids from `uid`, group ids from `gid`."""

        uid: int
        gid: int
        size: int

    class FsRecord(TypedDict):
        """Where a container is registered: the gRPC address, and the directory of a daemon of our own make, else ""."""

        target: str
        runDir: str

    class Flags(TypedDict, total=False):
        """The global flags given at create, which later commands follow without being told again."""

        systemdCgroup: bool
        noSysvisorFs: bool
        noSyscont: bool
        rootless: bool
        noPivot: bool
        noNewKeyring: bool

    Status = Literal["creating", "created", "running", "paused", "stopped"]

    class Record(TypedDict):
        """One container.

        `status` is the last transition that a command made; whether the container is paused or stopped is never
        stored but observed. `initStart` is in clock ticks since boot, `initHandle` the pidfd's file handle in hex,
        `stopSignal` is what asks init for an orderly end where SIGTERM does not, `initKind` which kind of init system
        that is ("systemd", "init"); both are absent from a container that runs a mere program. `overlayWork` is the
        work directory made for an overlay whose layers were mounted anew ("" for a read-only one), `overlayDevice` its
        st_dev.
        `created` UTC as Go prints RFC 3339 with nanoseconds, `namespaces` maps a type to a path under /proc, `spec`
        is the configuration after conversion: what the container was really made from.
        """

        version: int
        ociVersion: str
        id: str
        initPid: int
        initStart: int
        initHandle: NotRequired[str]
        bundle: str
        rootfs: str
        created: str
        annotations: dict[str, str]
        owner: int
        status: Literal["creating", "created", "running"]
        cgroup: CgroupRecord
        flags: Flags
        subid: SubidRecord | None
        namespaces: dict[str, str]
        spec: Spec
        syscont: bool
        intelRdt: str
        sysvisorFs: NotRequired[FsRecord]
        initKind: NotRequired[str]
        stopSignal: NotRequired[int]
        overlayWork: NotRequired[str]
        overlayDevice: NotRequired[int]


def new_record(
    container_id: str,
    *,
    bundle: str,
    rootfs: str,
    spec: Spec,
    flags: Flags,
    syscont: bool,
    cgroup: CgroupRecord | None = None,
    subid: SubidRecord | None = None,
) -> Record:
    """The record of a container that is being created: no init yet. `bundle` and `rootfs` are absolute paths."""
    return {
        "version": VERSION,
        "ociVersion": spec["ociVersion"],
        "id": container_id,
        "initPid": 0,
        "initStart": 0,
        "bundle": bundle,
        "rootfs": rootfs,
        "created": rfc3339nano(time.time_ns()),
        "annotations": dict(spec.get("annotations") or {}),
        "owner": os.geteuid(),
        "status": "creating",
        "cgroup": cgroup or {"driver": "none", "paths": {}, "leaf": ""},
        "flags": flags,
        "subid": subid,
        "namespaces": {},
        "spec": spec,
        "syscont": syscont,
        "intelRdt": "",
    }


def rfc3339nano(nanoseconds: int) -> str:
    """A moment since the epoch in UTC, as Go's time.RFC3339Nano prints it: without trailing zeros."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    year, month, day, hour, minute, second = time.gmtime(seconds)[:6]
    text = f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}"
    return f"{text}.{fraction:09d}".rstrip("0").rstrip(".") + "Z" if fraction else text + "Z"

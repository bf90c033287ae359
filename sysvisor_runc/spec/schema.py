"""config.json as data tables: which fields there are, of which type, in which range, and the names that are known.

Pure data beside the three tiny classes it is made of; imports nothing. `validate` walks the tables.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    # type: JSON type str or bool · tuple: integer between two bounds · frozenset: one of these strings
    # list: array of its only element · TEXT: string that may even hold NUL
    Rule: TypeAlias = "type | tuple[int, int] | frozenset[str] | list[Rule] | Object | Map | Text"


class Text:
    """A string that no system call ever sees, so that NUL does no harm in it."""

    __slots__ = ()


class Map:
    """An object whose keys are names chosen by the user."""

    __slots__ = ("rule",)

    def __init__(self, rule: Rule) -> None:
        self.rule = rule


class Object:
    """An object with known fields; others are ignored, as the specification demands.

    `required` must be there; `zero` may be left out and is then taken to be the value given here, as a Go program
    reading into a struct would.
    """

    __slots__ = ("fields", "required", "zero")

    def __init__(
        self,
        fields: dict[str, Rule],
        required: tuple[str, ...] = (),
        zero: dict[str, object] | None = None,
    ) -> None:
        self.fields = fields
        self.required = required
        self.zero = zero


TEXT = Text()
UINT16 = (0, 0xFFFF)
UINT32 = (0, 0xFFFFFFFF)
UINT64 = (0, 0xFFFFFFFFFFFFFFFF)
INT32 = (-0x80000000, 0x7FFFFFFF)
INT64 = (-0x8000000000000000, 0x7FFFFFFFFFFFFFFF)
STRINGS: list[Rule] = [str]


def _names(prefix: str, names: str) -> frozenset[str]:
    return frozenset([prefix + name for name in names.split()])


NAMESPACES = _names("", "pid network mount ipc uts user cgroup time")
PROPAGATIONS = _names("", "private shared slave unbindable rprivate rshared rslave runbindable")
# getrlimit(2)
RLIMITS = _names(
    "RLIMIT_", "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME"
)
SCHED_POLICIES = _names("SCHED_", "OTHER FIFO RR BATCH ISO IDLE DEADLINE")
SCHED_FLAGS = _names(
    "SCHED_FLAG_", "RESET_ON_FORK RECLAIM DL_OVERRUN KEEP_POLICY KEEP_PARAMS UTIL_CLAMP_MIN UTIL_CLAMP_MAX"
)
IOPRIO_CLASSES = _names("IOPRIO_CLASS_", "RT BE IDLE")
MPOL_MODES = _names("MPOL_", "DEFAULT BIND INTERLEAVE WEIGHTED_INTERLEAVE PREFERRED PREFERRED_MANY LOCAL")
MPOL_FLAGS = _names("MPOL_F_", "NUMA_BALANCING RELATIVE_NODES STATIC_NODES")
SECCOMP_ACTIONS = _names("SCMP_ACT_", "KILL KILL_PROCESS KILL_THREAD TRAP ERRNO TRACE ALLOW LOG NOTIFY")
SECCOMP_OPERATORS = _names("SCMP_CMP_", "NE LT LE EQ GE GT MASKED_EQ")
SECCOMP_FLAGS = _names("SECCOMP_FILTER_FLAG_", "TSYNC LOG SPEC_ALLOW WAIT_KILLABLE_RECV")
SECCOMP_ARCHES = _names(
    "SCMP_ARCH_",
    "X86 X86_64 X32 ARM AARCH64 LOONGARCH64 M68K MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE "
    "S390 S390X SH SHEB PARISC PARISC64 RISCV64",
)
# capabilities(7)
CAPABILITIES = _names(
    "CAP_",
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE",
)
# Every option that is not one of these is data for the file system.
MOUNT_OPTIONS = _names(
    "",
    "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime noexec "
    "noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow rbind relatime remount ro rw silent "
    "strictatime suid sync symfollow private shared slave unbindable rprivate rshared rslave runbindable rro rrw "
    "rnosuid rsuid rnodev rdev rnoexec rexec rnodiratime rdiratime rrelatime rnorelatime rnoatime ratime rstrictatime "
    "rnostrictatime rnosymfollow rsymfollow tmpcopyup idmap ridmap",
)

ID_MAPPINGS: list[Rule] = [
    Object(
        {"containerID": UINT32, "hostID": UINT32, "size": UINT32},
        ("size",),
        {"containerID": 0, "hostID": 0},
    )
]

PROCESS = Object(
    {
        "terminal": bool,
        "consoleSize": Object({"height": UINT64, "width": UINT64}, (), {"height": 0, "width": 0}),
        "user": Object(
            {"uid": UINT32, "gid": UINT32, "umask": UINT32, "additionalGids": [UINT32], "username": str},
            (),
            {"uid": 0, "gid": 0},
        ),
        "args": STRINGS,
        "commandLine": str,
        "env": STRINGS,
        "cwd": str,
        "capabilities": Object(
            dict.fromkeys(("bounding", "effective", "inheritable", "permitted", "ambient"), STRINGS)
        ),
        "rlimits": [Object({"type": RLIMITS, "hard": UINT64, "soft": UINT64}, ("type",), {"hard": 0, "soft": 0})],
        "noNewPrivileges": bool,
        "apparmorProfile": str,
        "selinuxLabel": str,
        "oomScoreAdj": (-1000, 1000),
        "scheduler": Object(
            {
                "policy": SCHED_POLICIES,
                "nice": INT32,
                "priority": INT32,
                "flags": [SCHED_FLAGS],
                "runtime": UINT64,
                "deadline": UINT64,
                "period": UINT64,
            },
            ("policy",),
        ),
        "ioPriority": Object({"class": IOPRIO_CLASSES, "priority": INT32}, ("class",), {"priority": 0}),
        "execCPUAffinity": Object({"initial": str, "final": str}),
    },
    ("cwd",),
    {"user": {"uid": 0, "gid": 0}},
)

_DEVICE_NUMBER: dict[str, Rule] = {"major": INT64, "minor": INT64}
_THROTTLE: list[Rule] = [Object(_DEVICE_NUMBER | {"rate": UINT64}, (), {"major": 0, "minor": 0, "rate": 0})]

RESOURCES = Object(
    {
        "unified": Map(str),
        "devices": [
            Object(
                {
                    "allow": bool,
                    "type": frozenset(["", "a", "b", "c"]),
                    "major": INT64,
                    "minor": INT64,
                    "access": str,
                },
                (),
                {"allow": False},
            )
        ],
        "pids": Object({"limit": INT64}),
        "blockIO": Object(
            {
                "weight": UINT16,
                "leafWeight": UINT16,
                "throttleReadBpsDevice": _THROTTLE,
                "throttleWriteBpsDevice": _THROTTLE,
                "throttleReadIOPSDevice": _THROTTLE,
                "throttleWriteIOPSDevice": _THROTTLE,
                "weightDevice": [
                    Object(_DEVICE_NUMBER | {"weight": UINT16, "leafWeight": UINT16}, (), {"major": 0, "minor": 0})
                ],
            }
        ),
        "cpu": Object(
            {
                "cpus": str,
                "mems": str,
                "period": UINT64,
                "quota": INT64,
                "burst": UINT64,
                "realtimePeriod": UINT64,
                "realtimeRuntime": INT64,
                "shares": UINT64,
                "idle": INT64,
            }
        ),
        "hugepageLimits": [Object({"pageSize": str, "limit": UINT64}, ("pageSize",), {"limit": 0})],
        "memory": Object(
            {
                "kernel": INT64,
                "kernelTCP": INT64,
                "limit": INT64,
                "reservation": INT64,
                "swap": INT64,
                "swappiness": UINT64,
                "disableOOMKiller": bool,
                "useHierarchy": bool,
                "checkBeforeUpdate": bool,
            }
        ),
        "network": Object(
            {"classID": UINT32, "priorities": [Object({"name": str, "priority": UINT32}, ("name",), {"priority": 0})]}
        ),
        "rdma": Map(Object({"hcaHandles": UINT32, "hcaObjects": UINT32})),
    }
)

_SECCOMP = Object(
    {
        "defaultAction": SECCOMP_ACTIONS | {""},
        "defaultErrnoRet": UINT32,
        "flags": [SECCOMP_FLAGS],
        "listenerPath": str,
        "listenerMetadata": str,
        "architectures": [SECCOMP_ARCHES],
        "syscalls": [
            Object(
                {
                    "names": STRINGS,
                    "action": SECCOMP_ACTIONS,
                    "errnoRet": UINT32,
                    "args": [
                        Object(
                            # A system call has six arguments.
                            {"index": (0, 5), "value": UINT64, "valueTwo": UINT64, "op": SECCOMP_OPERATORS},
                            ("op",),
                            {"index": 0, "value": 0},
                        )
                    ],
                },
                ("names", "action"),
            )
        ],
    },
    (),
    {"defaultAction": ""},
)

# A time offset's nanoseconds are those of a timespec (time_namespaces(7)).
_TIME_OFFSET = Object({"secs": INT64, "nanosecs": (0, 999_999_999)})

_LINUX = Object(
    {
        "devices": [
            Object(
                {
                    "type": frozenset("cbup"),
                    "path": str,
                    # Any bits: clients hand over st_mode as they found it.
                    "fileMode": UINT32,
                    "major": INT64,
                    "minor": INT64,
                    "uid": UINT32,
                    "gid": UINT32,
                },
                ("type", "path"),
                {"major": 0, "minor": 0},
            )
        ],
        "netDevices": Map(Object({"name": str})),
        "uidMappings": ID_MAPPINGS,
        "gidMappings": ID_MAPPINGS,
        "namespaces": [Object({"type": NAMESPACES, "path": str}, ("type",))],
        "resources": RESOURCES,
        "cgroupsPath": str,
        "rootfsPropagation": PROPAGATIONS | {""},
        "seccomp": _SECCOMP,
        "sysctl": Map(str),
        "maskedPaths": STRINGS,
        "readonlyPaths": STRINGS,
        "mountLabel": str,
        "intelRdt": Object(
            {
                "closID": str,
                "schemata": STRINGS,
                "l3CacheSchema": str,
                "memBwSchema": str,
                "enableMonitoring": bool,
            }
        ),
        # The names in here are checked with the rules: clients know the wording.
        "memoryPolicy": Object({"mode": str, "nodes": str, "flags": STRINGS}, (), {"mode": ""}),
        "personality": Object({"domain": frozenset(["LINUX", "LINUX32"]), "flags": STRINGS}, ("domain",)),
        "timeOffsets": Map(_TIME_OFFSET),
    }
)

HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_HOOK: list[Rule] = [
    Object({"path": str, "args": STRINGS, "env": STRINGS, "timeout": (1, INT64[1])}, ("path",)),
]

SPEC = Object(
    {
        "ociVersion": str,
        "process": PROCESS,
        "root": Object({"path": str, "readonly": bool}, ("path",)),
        "hostname": str,
        "domainname": str,
        "mounts": [
            Object(
                {
                    "destination": str,
                    "type": str,
                    "source": str,
                    "options": STRINGS,
                    "uidMappings": ID_MAPPINGS,
                    "gidMappings": ID_MAPPINGS,
                },
                ("destination",),
            )
        ],
        "hooks": Object(dict.fromkeys(HOOKS, _HOOK)),
        "annotations": Map(TEXT),
        "linux": _LINUX,
    },
    ("ociVersion",),
)

"""The shape of config.json (OCI runtime-spec 1.3 for Linux), for the type checker only.

Never imported at run time: `typing` costs more than the whole of `state`. A key that is not NotRequired is present in
every Spec that `validate` has returned, with its zero value where the file left out what the specification lets out.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict  # noqa: TID253  # this module is never imported at run time


class IDMapping(TypedDict):
    containerID: int
    hostID: int
    size: int


class Root(TypedDict):
    path: str
    readonly: NotRequired[bool]


class Mount(TypedDict):
    destination: str
    type: NotRequired[str]
    source: NotRequired[str]
    options: NotRequired[list[str]]
    uidMappings: NotRequired[list[IDMapping]]
    gidMappings: NotRequired[list[IDMapping]]


class Box(TypedDict):
    height: int
    width: int


class User(TypedDict):
    uid: int
    gid: int
    umask: NotRequired[int]
    additionalGids: NotRequired[list[int]]
    username: NotRequired[str]


class Capabilities(TypedDict, total=False):
    bounding: list[str]
    effective: list[str]
    inheritable: list[str]
    permitted: list[str]
    ambient: list[str]


class Rlimit(TypedDict):
    type: str
    hard: int
    soft: int


class Scheduler(TypedDict):
    policy: str
    nice: NotRequired[int]
    priority: NotRequired[int]
    flags: NotRequired[list[str]]
    runtime: NotRequired[int]
    deadline: NotRequired[int]
    period: NotRequired[int]


# `class` is no identifier.
IOPriority = TypedDict("IOPriority", {"class": str, "priority": int})


class CPUAffinity(TypedDict, total=False):
    initial: str
    final: str


class Process(TypedDict):
    cwd: str
    args: list[str]
    user: User
    terminal: NotRequired[bool]
    consoleSize: NotRequired[Box]
    env: NotRequired[list[str]]
    capabilities: NotRequired[Capabilities]
    rlimits: NotRequired[list[Rlimit]]
    noNewPrivileges: NotRequired[bool]
    apparmorProfile: NotRequired[str]
    selinuxLabel: NotRequired[str]
    oomScoreAdj: NotRequired[int]
    scheduler: NotRequired[Scheduler]
    ioPriority: NotRequired[IOPriority]
    execCPUAffinity: NotRequired[CPUAffinity]


class Hook(TypedDict):
    path: str
    args: NotRequired[list[str]]
    env: NotRequired[list[str]]
    timeout: NotRequired[int]


class Hooks(TypedDict, total=False):
    prestart: list[Hook]
    createRuntime: list[Hook]
    createContainer: list[Hook]
    startContainer: list[Hook]
    poststart: list[Hook]
    poststop: list[Hook]


class Namespace(TypedDict):
    type: str
    path: NotRequired[str]


class Device(TypedDict):
    type: str
    path: str
    major: int
    minor: int
    fileMode: NotRequired[int]
    uid: NotRequired[int]
    gid: NotRequired[int]


class NetDevice(TypedDict, total=False):
    name: str


class DeviceCgroup(TypedDict):
    allow: bool
    access: str
    type: NotRequired[str]
    major: NotRequired[int]
    minor: NotRequired[int]


class Memory(TypedDict, total=False):
    limit: int
    reservation: int
    swap: int
    kernel: int
    kernelTCP: int
    swappiness: int
    disableOOMKiller: bool
    useHierarchy: bool
    checkBeforeUpdate: bool


class CPU(TypedDict, total=False):
    shares: int
    quota: int
    burst: int
    period: int
    realtimeRuntime: int
    realtimePeriod: int
    cpus: str
    mems: str
    idle: int


class Pids(TypedDict, total=False):
    limit: int


class WeightDevice(TypedDict):
    major: int
    minor: int
    weight: NotRequired[int]
    leafWeight: NotRequired[int]


class ThrottleDevice(TypedDict):
    major: int
    minor: int
    rate: int


class BlockIO(TypedDict, total=False):
    weight: int
    leafWeight: int
    weightDevice: list[WeightDevice]
    throttleReadBpsDevice: list[ThrottleDevice]
    throttleWriteBpsDevice: list[ThrottleDevice]
    throttleReadIOPSDevice: list[ThrottleDevice]
    throttleWriteIOPSDevice: list[ThrottleDevice]


class HugepageLimit(TypedDict):
    pageSize: str
    limit: int


class InterfacePriority(TypedDict):
    name: str
    priority: int


class Network(TypedDict, total=False):
    classID: int
    priorities: list[InterfacePriority]


class Rdma(TypedDict, total=False):
    hcaHandles: int
    hcaObjects: int


class LinuxResources(TypedDict, total=False):
    devices: list[DeviceCgroup]
    memory: Memory
    cpu: CPU
    pids: Pids
    blockIO: BlockIO
    hugepageLimits: list[HugepageLimit]
    network: Network
    rdma: dict[str, Rdma]
    unified: dict[str, str]


class SeccompArg(TypedDict):
    index: int
    value: int
    op: str
    valueTwo: NotRequired[int]


class SeccompSyscall(TypedDict):
    names: list[str]
    action: str
    errnoRet: NotRequired[int]
    args: NotRequired[list[SeccompArg]]


class Seccomp(TypedDict):
    # Empty means that the profile is switched off (it then has no syscalls either).
    defaultAction: str
    defaultErrnoRet: NotRequired[int]
    architectures: NotRequired[list[str]]
    # Absent and empty differ: absent asks for the runtime's default flags.
    flags: NotRequired[list[str]]
    listenerPath: NotRequired[str]
    listenerMetadata: NotRequired[str]
    syscalls: NotRequired[list[SeccompSyscall]]


class IntelRdt(TypedDict, total=False):
    closID: str
    schemata: list[str]
    l3CacheSchema: str
    memBwSchema: str
    enableMonitoring: bool


class MemoryPolicy(TypedDict):
    mode: str
    nodes: NotRequired[str]
    flags: NotRequired[list[str]]


class Personality(TypedDict):
    domain: str
    flags: NotRequired[list[str]]


class TimeOffset(TypedDict, total=False):
    secs: int
    nanosecs: int


class TimeOffsets(TypedDict, total=False):
    boottime: TimeOffset
    monotonic: TimeOffset


class Linux(TypedDict, total=False):
    namespaces: list[Namespace]
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]
    timeOffsets: TimeOffsets
    devices: list[Device]
    netDevices: dict[str, NetDevice]
    cgroupsPath: str
    resources: LinuxResources
    rootfsPropagation: str
    seccomp: Seccomp
    sysctl: dict[str, str]
    maskedPaths: list[str]
    readonlyPaths: list[str]
    mountLabel: str
    intelRdt: IntelRdt
    memoryPolicy: MemoryPolicy
    personality: Personality


class Spec(TypedDict):
    ociVersion: str
    root: Root
    # Only `validate(…, runnable=False)` lets it be absent.
    process: Process
    hostname: NotRequired[str]
    domainname: NotRequired[str]
    mounts: NotRequired[list[Mount]]
    hooks: NotRequired[Hooks]
    annotations: NotRequired[dict[str, str]]
    linux: NotRequired[Linux]

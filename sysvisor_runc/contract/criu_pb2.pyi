from collections.abc import Iterable as _Iterable
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar

from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper

DESCRIPTOR: _descriptor.FileDescriptor

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EMPTY: _ClassVar[Kind]
    DUMP: _ClassVar[Kind]
    RESTORE: _ClassVar[Kind]
    PRE_DUMP: _ClassVar[Kind]
    NOTIFY: _ClassVar[Kind]
    FEATURE_CHECK: _ClassVar[Kind]
    VERSION: _ClassVar[Kind]

class CgroupMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IGNORE: _ClassVar[CgroupMode]
    SOFT: _ClassVar[CgroupMode]
    FULL: _ClassVar[CgroupMode]
    STRICT: _ClassVar[CgroupMode]
    DEFAULT: _ClassVar[CgroupMode]

EMPTY: Kind
DUMP: Kind
RESTORE: Kind
PRE_DUMP: Kind
NOTIFY: Kind
FEATURE_CHECK: Kind
VERSION: Kind
IGNORE: CgroupMode
SOFT: CgroupMode
FULL: CgroupMode
STRICT: CgroupMode
DEFAULT: CgroupMode

class PageServer(_message.Message):
    __slots__ = ("address", "port")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    address: str
    port: int
    def __init__(self, address: str | None = ..., port: int | None = ...) -> None: ...

class Pair(_message.Message):
    __slots__ = ("key", "val")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VAL_FIELD_NUMBER: _ClassVar[int]
    key: str
    val: str
    def __init__(self, key: str | None = ..., val: str | None = ...) -> None: ...

class JoinNamespace(_message.Message):
    __slots__ = ("ns", "ns_file")
    NS_FIELD_NUMBER: _ClassVar[int]
    NS_FILE_FIELD_NUMBER: _ClassVar[int]
    ns: str
    ns_file: str
    def __init__(self, ns: str | None = ..., ns_file: str | None = ...) -> None: ...

class InheritFd(_message.Message):
    __slots__ = ("fd", "key")
    KEY_FIELD_NUMBER: _ClassVar[int]
    FD_FIELD_NUMBER: _ClassVar[int]
    key: str
    fd: int
    def __init__(self, key: str | None = ..., fd: int | None = ...) -> None: ...

class CgroupRoot(_message.Message):
    __slots__ = ("ctrl", "path")
    CTRL_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    ctrl: str
    path: str
    def __init__(self, ctrl: str | None = ..., path: str | None = ...) -> None: ...

class Options(_message.Message):
    __slots__ = (
        "auto_dedup",
        "cg_root",
        "config_file",
        "empty_ns",
        "evasive_devices",
        "ext_mnt",
        "ext_unix_sk",
        "external",
        "file_locks",
        "freeze_cgroup",
        "images_dir_fd",
        "inherit_fd",
        "join_ns",
        "lazy_pages",
        "leave_running",
        "link_remap",
        "log_file",
        "log_level",
        "lsm_mount_context",
        "lsm_profile",
        "manage_cgroups",
        "manage_cgroups_mode",
        "notify_scripts",
        "orphan_pts_master",
        "parent_img",
        "pid",
        "ps",
        "root",
        "rst_sibling",
        "shell_job",
        "status_fd",
        "tcp_established",
        "tcp_skip_in_flight",
        "track_mem",
        "work_dir_fd",
    )
    IMAGES_DIR_FD_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    LEAVE_RUNNING_FIELD_NUMBER: _ClassVar[int]
    EXT_UNIX_SK_FIELD_NUMBER: _ClassVar[int]
    TCP_ESTABLISHED_FIELD_NUMBER: _ClassVar[int]
    EVASIVE_DEVICES_FIELD_NUMBER: _ClassVar[int]
    SHELL_JOB_FIELD_NUMBER: _ClassVar[int]
    FILE_LOCKS_FIELD_NUMBER: _ClassVar[int]
    LOG_LEVEL_FIELD_NUMBER: _ClassVar[int]
    LOG_FILE_FIELD_NUMBER: _ClassVar[int]
    PS_FIELD_NUMBER: _ClassVar[int]
    NOTIFY_SCRIPTS_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    PARENT_IMG_FIELD_NUMBER: _ClassVar[int]
    TRACK_MEM_FIELD_NUMBER: _ClassVar[int]
    AUTO_DEDUP_FIELD_NUMBER: _ClassVar[int]
    WORK_DIR_FD_FIELD_NUMBER: _ClassVar[int]
    LINK_REMAP_FIELD_NUMBER: _ClassVar[int]
    EXT_MNT_FIELD_NUMBER: _ClassVar[int]
    MANAGE_CGROUPS_FIELD_NUMBER: _ClassVar[int]
    CG_ROOT_FIELD_NUMBER: _ClassVar[int]
    RST_SIBLING_FIELD_NUMBER: _ClassVar[int]
    INHERIT_FD_FIELD_NUMBER: _ClassVar[int]
    MANAGE_CGROUPS_MODE_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_FIELD_NUMBER: _ClassVar[int]
    EMPTY_NS_FIELD_NUMBER: _ClassVar[int]
    JOIN_NS_FIELD_NUMBER: _ClassVar[int]
    FREEZE_CGROUP_FIELD_NUMBER: _ClassVar[int]
    TCP_SKIP_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    LAZY_PAGES_FIELD_NUMBER: _ClassVar[int]
    STATUS_FD_FIELD_NUMBER: _ClassVar[int]
    ORPHAN_PTS_MASTER_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FILE_FIELD_NUMBER: _ClassVar[int]
    LSM_PROFILE_FIELD_NUMBER: _ClassVar[int]
    LSM_MOUNT_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    images_dir_fd: int
    pid: int
    leave_running: bool
    ext_unix_sk: bool
    tcp_established: bool
    evasive_devices: bool
    shell_job: bool
    file_locks: bool
    log_level: int
    log_file: str
    ps: PageServer
    notify_scripts: bool
    root: str
    parent_img: str
    track_mem: bool
    auto_dedup: bool
    work_dir_fd: int
    link_remap: bool
    ext_mnt: _containers.RepeatedCompositeFieldContainer[Pair]
    manage_cgroups: bool
    cg_root: _containers.RepeatedCompositeFieldContainer[CgroupRoot]
    rst_sibling: bool
    inherit_fd: _containers.RepeatedCompositeFieldContainer[InheritFd]
    manage_cgroups_mode: CgroupMode
    external: _containers.RepeatedScalarFieldContainer[str]
    empty_ns: int
    join_ns: _containers.RepeatedCompositeFieldContainer[JoinNamespace]
    freeze_cgroup: str
    tcp_skip_in_flight: bool
    lazy_pages: bool
    status_fd: int
    orphan_pts_master: bool
    config_file: str
    lsm_profile: str
    lsm_mount_context: str
    def __init__(
        self,
        images_dir_fd: int | None = ...,
        pid: int | None = ...,
        leave_running: bool | None = ...,
        ext_unix_sk: bool | None = ...,
        tcp_established: bool | None = ...,
        evasive_devices: bool | None = ...,
        shell_job: bool | None = ...,
        file_locks: bool | None = ...,
        log_level: int | None = ...,
        log_file: str | None = ...,
        ps: PageServer | _Mapping[str, object] | None = ...,
        notify_scripts: bool | None = ...,
        root: str | None = ...,
        parent_img: str | None = ...,
        track_mem: bool | None = ...,
        auto_dedup: bool | None = ...,
        work_dir_fd: int | None = ...,
        link_remap: bool | None = ...,
        ext_mnt: _Iterable[Pair | _Mapping[str, object]] | None = ...,
        manage_cgroups: bool | None = ...,
        cg_root: _Iterable[CgroupRoot | _Mapping[str, object]] | None = ...,
        rst_sibling: bool | None = ...,
        inherit_fd: _Iterable[InheritFd | _Mapping[str, object]] | None = ...,
        manage_cgroups_mode: CgroupMode | str | None = ...,
        external: _Iterable[str] | None = ...,
        empty_ns: int | None = ...,
        join_ns: _Iterable[JoinNamespace | _Mapping[str, object]] | None = ...,
        freeze_cgroup: str | None = ...,
        tcp_skip_in_flight: bool | None = ...,
        lazy_pages: bool | None = ...,
        status_fd: int | None = ...,
        orphan_pts_master: bool | None = ...,
        config_file: str | None = ...,
        lsm_profile: str | None = ...,
        lsm_mount_context: str | None = ...,
    ) -> None: ...

class Features(_message.Message):
    __slots__ = ("lazy_pages", "mem_track")
    MEM_TRACK_FIELD_NUMBER: _ClassVar[int]
    LAZY_PAGES_FIELD_NUMBER: _ClassVar[int]
    mem_track: bool
    lazy_pages: bool
    def __init__(self, mem_track: bool | None = ..., lazy_pages: bool | None = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("features", "notify_success", "opts", "type")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    OPTS_FIELD_NUMBER: _ClassVar[int]
    NOTIFY_SUCCESS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    type: Kind
    opts: Options
    notify_success: bool
    features: Features
    def __init__(
        self,
        type: Kind | str | None = ...,
        opts: Options | _Mapping[str, object] | None = ...,
        notify_success: bool | None = ...,
        features: Features | _Mapping[str, object] | None = ...,
    ) -> None: ...

class Restored(_message.Message):
    __slots__ = ("pid",)
    PID_FIELD_NUMBER: _ClassVar[int]
    pid: int
    def __init__(self, pid: int | None = ...) -> None: ...

class Notification(_message.Message):
    __slots__ = ("pid", "script")
    SCRIPT_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    script: str
    pid: int
    def __init__(self, script: str | None = ..., pid: int | None = ...) -> None: ...

class Version(_message.Message):
    __slots__ = ("major_number", "minor_number", "sublevel")
    MAJOR_NUMBER_FIELD_NUMBER: _ClassVar[int]
    MINOR_NUMBER_FIELD_NUMBER: _ClassVar[int]
    SUBLEVEL_FIELD_NUMBER: _ClassVar[int]
    major_number: int
    minor_number: int
    sublevel: int
    def __init__(
        self, major_number: int | None = ..., minor_number: int | None = ..., sublevel: int | None = ...
    ) -> None: ...

class Answer(_message.Message):
    __slots__ = ("cr_errmsg", "cr_errno", "features", "notify", "restore", "success", "type", "version")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    RESTORE_FIELD_NUMBER: _ClassVar[int]
    NOTIFY_FIELD_NUMBER: _ClassVar[int]
    CR_ERRNO_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    CR_ERRMSG_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    type: Kind
    success: bool
    restore: Restored
    notify: Notification
    cr_errno: int
    features: Features
    cr_errmsg: str
    version: Version
    def __init__(
        self,
        type: Kind | str | None = ...,
        success: bool | None = ...,
        restore: Restored | _Mapping[str, object] | None = ...,
        notify: Notification | _Mapping[str, object] | None = ...,
        cr_errno: int | None = ...,
        features: Features | _Mapping[str, object] | None = ...,
        cr_errmsg: str | None = ...,
        version: Version | _Mapping[str, object] | None = ...,
    ) -> None: ...

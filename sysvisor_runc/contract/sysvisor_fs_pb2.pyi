import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ContainerData(_message.Message):
    __slots__ = ("Id", "InitPid", "Hostname", "Ctime", "UidFirst", "UidSize", "GidFirst", "GidSize", "ProcRoPaths", "ProcMaskPaths", "Netns")
    ID_FIELD_NUMBER: _ClassVar[int]
    INITPID_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    CTIME_FIELD_NUMBER: _ClassVar[int]
    UIDFIRST_FIELD_NUMBER: _ClassVar[int]
    UIDSIZE_FIELD_NUMBER: _ClassVar[int]
    GIDFIRST_FIELD_NUMBER: _ClassVar[int]
    GIDSIZE_FIELD_NUMBER: _ClassVar[int]
    PROCROPATHS_FIELD_NUMBER: _ClassVar[int]
    PROCMASKPATHS_FIELD_NUMBER: _ClassVar[int]
    NETNS_FIELD_NUMBER: _ClassVar[int]
    Id: str
    InitPid: int
    Hostname: str
    Ctime: _timestamp_pb2.Timestamp
    UidFirst: int
    UidSize: int
    GidFirst: int
    GidSize: int
    ProcRoPaths: _containers.RepeatedScalarFieldContainer[str]
    ProcMaskPaths: _containers.RepeatedScalarFieldContainer[str]
    Netns: str
    def __init__(self, Id: _Optional[str] = ..., InitPid: _Optional[int] = ..., Hostname: _Optional[str] = ..., Ctime: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping[str, object]]] = ..., UidFirst: _Optional[int] = ..., UidSize: _Optional[int] = ..., GidFirst: _Optional[int] = ..., GidSize: _Optional[int] = ..., ProcRoPaths: _Optional[_Iterable[str]] = ..., ProcMaskPaths: _Optional[_Iterable[str]] = ..., Netns: _Optional[str] = ...) -> None: ...

class Response(_message.Message):
    __slots__ = ("Success",)
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    Success: bool
    def __init__(self, Success: _Optional[bool] = ...) -> None: ...

class MountpointReq(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MountpointResp(_message.Message):
    __slots__ = ("Mountpoint",)
    MOUNTPOINT_FIELD_NUMBER: _ClassVar[int]
    Mountpoint: str
    def __init__(self, Mountpoint: _Optional[str] = ...) -> None: ...

from sysvisor_runc.contract import sysvisor_fs_pb2 as _sysvisor_fs_pb2
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

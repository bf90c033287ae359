"""criu's messages, with protobuf found where this program's libraries are. Import them from here."""

from __future__ import annotations

from sysvisor_runc.aio.libraries import make_importable
from sysvisor_runc.errors import SysvisorError

make_importable()
try:
    from sysvisor_runc.contract import criu_pb2 as criu_pb2
except ImportError as error:
    raise SysvisorError(f"protobuf is needed to speak with criu: {error}", hint="apt-get install python3-protobuf")

"""Calls a sysvisor-fs as other programs do, and prints what came of it as JSON. A process of its own: gRPC has threads.

python fs_client.py ADDRESS
"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import grpc

from sysvisor_runc.contract.names import SERVICES
from sysvisor_runc.contract.sysvisor_fs_pb2 import (
    ContainerData,
    MountpointReq,
    MountpointResp,
    Response,
)


def main() -> None:
    """Every name, every code."""
    channel = grpc.insecure_channel(sys.argv[1])
    found: dict[str, object] = {}

    def call(method: str, service: str = SERVICES[0], **fields: object) -> str:
        stub = channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=ContainerData.SerializeToString,
            response_deserializer=Response.FromString,
        )
        try:
            answer = stub(ContainerData(**fields), timeout=20, wait_for_ready=True)  # type: ignore[arg-type]  # by name
            return str(answer.Success)
        except grpc.RpcError as error:
            return str(error.code().name)

    for service in SERVICES:
        ask = channel.unary_unary(
            f"/{service}/GetMountpoint",
            request_serializer=MountpointReq.SerializeToString,
            response_deserializer=MountpointResp.FromString,
        )
        found[service] = ask(MountpointReq(), timeout=20, wait_for_ready=True).Mountpoint
    found["first"] = call("ContainerPreRegistration", Id="one")
    found["again"] = call("ContainerPreRegistration", SERVICES[3], Id="one")
    found["no id"] = call("ContainerPreRegistration")
    found["path as id"] = call("ContainerPreRegistration", Id="../x")
    found["no pid"] = call("ContainerRegistration", Id="one")
    found["dead pid"] = call("ContainerRegistration", Id="one", InitPid=(1 << 22) - 1)
    found["unknown"] = call("ContainerUpdate", Id="two", Ctime={"seconds": 1})
    found["no time"] = call("ContainerUpdate", Id="one")
    found["gone"] = call("ContainerUnregistration", SERVICES[1], Id="one")
    found["gone again"] = call("ContainerUnregistration", Id="one")
    print(json.dumps(found))


if __name__ == "__main__":
    main()

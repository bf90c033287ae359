"""Calls a sysvisor-fs as other programs do, and prints what came of it as JSON. A process of its own: gRPC has threads.

python fs_client.py ADDRESS codes|standard
python fs_client.py ADDRESS health     for each line that it reads, what it is told, and what a watch was told so far
"""

import json
import os
import pathlib
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from sysvisor_runc.contract.names import SERVICES, signed
from sysvisor_runc.contract.sysvisor_fs_pb2 import (
    ContainerData,
    MountpointReq,
    MountpointResp,
    Response,
)


def main() -> None:
    """Ask, and print."""
    with grpc.insecure_channel(sys.argv[1]) as channel:
        if sys.argv[2] == "health":
            tell_health(channel)
        else:
            print(json.dumps(codes(channel) if sys.argv[2] == "codes" else standard(channel)))


def tell_health(channel: grpc.Channel) -> None:
    """Ask again and again, and watch meanwhile."""
    health = health_pb2_grpc.HealthStub(channel)
    status = health_pb2.HealthCheckResponse.ServingStatus.Name
    watched: list[str] = []
    request = health_pb2.HealthCheckRequest(service=SERVICES[0])

    def watch() -> None:
        watched.extend(status(one.status) for one in health.Watch(request, wait_for_ready=True))

    threading.Thread(target=watch, daemon=True).start()
    for _ in sys.stdin:
        answer = health.Check(request, timeout=20, wait_for_ready=True)
        print(json.dumps({"checked": status(answer.status), "watched": watched}), flush=True)
    os._exit(0)


def standard(channel: grpc.Channel) -> dict[str, object]:
    """What any gRPC server is asked: whether it is well, and what it speaks."""
    health = health_pb2_grpc.HealthStub(channel)

    def state(name: str) -> str:
        try:
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=20, wait_for_ready=True)
            return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
        except grpc.RpcError as error:
            return str(error.code().name)

    watched = health.Watch(health_pb2.HealthCheckRequest(service=SERVICES[0]), timeout=20, wait_for_ready=True)
    first = next(watched).status
    watched.cancel()
    reflected = ProtoReflectionDescriptorDatabase(channel)
    files = [reflected.FindFileContainingSymbol(name) for name in SERVICES]
    services = {f"{file.package}.{one.name}": one for file in files for one in file.service}
    messages = reflected.FindFileContainingSymbol("protobuf.ContainerData").message_type
    fields = next(one for one in messages if one.name == "ContainerData").field
    return {
        "health": {name: state(name) for name in ("", *SERVICES, "nosuch")},
        "watched": first,
        "services": sorted(reflected.get_services()),
        "methods": {name: [one.name for one in services[name].method] for name in SERVICES},
        "fields": {one.name: one.number for one in fields},
    }


def codes(channel: grpc.Channel) -> dict[str, object]:
    """Every name, every code."""
    found: dict[str, object] = {}

    def call(method: str, service: str = SERVICES[0], /, **fields: object) -> str:
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
    # Ids beyond half of the range travel as negative numbers.
    high = {"UidFirst": signed(3_000_000_000), "UidSize": 65536, "GidFirst": signed(4_000_000_000), "GidSize": 65536}
    found["high ids"] = call("ContainerRegistration", Id="high", InitPid=os.getpid(), **high)
    record = json.loads(pathlib.Path(sys.argv[1].partition(":")[2]).with_name("fs").joinpath("high/record").read_text())
    found["high ids are"] = [record["uid"], record["gid"]]
    found["known"] = call("ContainerRegistration", Id="high", InitPid=os.getpid(), **high)
    beyond = {**high, "GidSize": signed(4_000_000_000)}
    found["ids beyond"] = call("ContainerRegistration", Id="beyond", InitPid=os.getpid(), **beyond)
    found["no pid"] = call("ContainerRegistration", Id="one")
    found["dead pid"] = call("ContainerRegistration", Id="one", InitPid=(1 << 22) - 1)
    found["unknown"] = call("ContainerUpdate", Id="two", Ctime={"seconds": 1})
    found["no time"] = call("ContainerUpdate", Id="one")
    found["gone"] = call("ContainerUnregistration", SERVICES[1], Id="one")
    found["gone again"] = call("ContainerUnregistration", Id="one")
    return found


if __name__ == "__main__":
    main()

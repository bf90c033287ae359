"""A daemon of another make, or of another time: a gRPC server that notes the calls it gets, and does nothing.

    python foreign_fs.py ADDRESS LOG SERVICE METHOD[=CODE|=hang]…

Started as a process of its own, since gRPC's threads and the forks of a test do not go together.
"""

import pathlib
import sys
import time
from concurrent import futures
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import grpc

from sysvisor_runc.contract.sysvisor_fs_pb2 import (
    ContainerData,
    MountpointReq,
    MountpointResp,
    Response,
)


def handler(method: str, outcome: str, log: pathlib.Path, mountpoint: str) -> Any:
    """Answers one method as told."""

    def answer(data: Any, context: Any) -> Any:
        fields = {name: value for name in ("Id", "InitPid", "UidFirst") if (value := getattr(data, name, ""))}
        if getattr(data, "Ctime", None) is not None and data.HasField("Ctime"):
            fields["Ctime"] = data.Ctime.seconds
        with log.open("a") as file:
            file.write(f"{method} {fields}\n")
        if outcome == "hang":
            time.sleep(60)
        if outcome:
            context.abort(grpc.StatusCode[outcome], f"{method} was told to fail")
        return MountpointResp(Mountpoint=mountpoint) if method == "GetMountpoint" else Response(Success=True)

    if method == "GetMountpoint":
        return grpc.unary_unary_rpc_method_handler(answer, MountpointReq.FromString, MountpointResp.SerializeToString)
    return grpc.unary_unary_rpc_method_handler(answer, ContainerData.FromString, Response.SerializeToString)


def main() -> None:
    """Serve until killed."""
    address, log, mountpoint, service, *methods = sys.argv[1:]
    server = grpc.server(futures.ThreadPoolExecutor(4))
    pairs = [method.partition("=")[::2] for method in methods]
    handlers = {method: handler(method, outcome, pathlib.Path(log), mountpoint) for method, outcome in pairs}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(address)
    server.start()
    pathlib.Path(log).with_name("ready").touch()
    server.wait_for_termination()


if __name__ == "__main__":
    main()

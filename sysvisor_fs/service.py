"""The gRPC service: messages in, requests to the daemon out, its failures as status codes.

The only file of the daemon that names grpc, which takes a tenth of a second to load. Only the gateway has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sysvisor_fs.contract import CALLS
from sysvisor_runc import log
from sysvisor_runc.aio.libraries import make_importable
from sysvisor_runc.contract import names

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Protocol

    from sysvisor_runc.contract.sysvisor_fs_pb2 import ContainerData, MountpointReq, MountpointResp, Response

    Context = object
    Message = dict[str, object]

    class Daemon(Protocol):
        """What `gateway.Daemon` is."""

        async def ask(self, request: Message) -> Message: ...


CALLS_AT_ONCE = 64


class Server:
    """A running gRPC server."""

    def __init__(self, server: object) -> None:
        self._server = server

    async def stop(self, grace: float) -> None:
        """Let the calls that are under way end, then stop."""
        await self._server.stop(grace)  # type: ignore[attr-defined]  # grpc has no types


async def serve(daemon: Daemon, address: str) -> Server:
    """Serve the contract on `address`, as gRPC spells it, under all the names of the service.

    Raises:
        ImportError: gRPC is not installed.
        OSError: the address cannot be had.
    """
    make_importable()
    import grpc.aio

    server = grpc.aio.server(maximum_concurrent_rpcs=CALLS_AT_ONCE, options=[("grpc.so_reuseport", 0)])
    methods = _methods(daemon)
    for name in names.SERVICES:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
    _add_health(server, daemon)
    _add_reflection(server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(98, str(error), address) from None  # EADDRINUSE
    await server.start()
    return Server(server)


def _methods(daemon: Daemon) -> dict[str, object]:
    import grpc

    from sysvisor_runc.contract.sysvisor_fs_pb2 import ContainerData, MountpointReq, MountpointResp, Response

    async def mountpoint(_: MountpointReq, context: Context) -> MountpointResp:
        answer = await _asked(daemon, {"op": CALLS["GetMountpoint"]}, context)
        return MountpointResp(Mountpoint=str(answer["mountpoint"]))

    def taking(op: str) -> Callable[[ContainerData, Context], Coroutine[object, object, Response]]:
        async def call(data: ContainerData, context: Context) -> Response:
            await _asked(daemon, {"op": op, **_fields(data)}, context)
            return Response(Success=True)

        return call

    handlers: dict[str, object] = {
        name: grpc.unary_unary_rpc_method_handler(
            taking(op),
            request_deserializer=ContainerData.FromString,
            response_serializer=Response.SerializeToString,
        )
        for name, op in CALLS.items()
    }
    handlers["GetMountpoint"] = grpc.unary_unary_rpc_method_handler(
        mountpoint,
        request_deserializer=MountpointReq.FromString,
        response_serializer=MountpointResp.SerializeToString,
    )
    return handlers


def _fields(data: ContainerData) -> Message:
    """A message as the daemon's calls have it."""
    fields: Message = {
        "id": data.Id,
        "initPid": data.InitPid,
        "uid": [names.unsigned(data.UidFirst), names.unsigned(data.UidSize)],
        "gid": [names.unsigned(data.GidFirst), names.unsigned(data.GidSize)],
        "readonlyPaths": list(data.ProcRoPaths),
        "maskedPaths": list(data.ProcMaskPaths),
        "netns": data.Netns,
    }
    if data.HasField("Ctime"):
        fields["created"] = data.Ctime.seconds * 1_000_000_000 + data.Ctime.nanos
    return fields


async def _asked(daemon: Daemon, request: Message, context: Context) -> Message:
    """The daemon's answer; its failure is the call's, with the status code that it has."""
    import grpc

    try:
        answer = await daemon.ask(request)
    except OSError as error:
        answer = {"error": str(error), "code": "UNAVAILABLE"}
    if "error" in answer:
        abort: Callable[[object, str], Awaitable[None]] = context.abort  # type: ignore[attr-defined]
        await abort(grpc.StatusCode[str(answer["code"])], str(answer["error"]))
    return answer


def _add_health(server: object, daemon: Daemon) -> None:
    """grpc.health.v1, where its package is installed."""
    from sysvisor_fs.health import add_health

    try:
        add_health(server, daemon.ask, ("", *names.SERVICES))
    except ImportError:
        log.debug("no gRPC health service: the package grpcio-health-checking is not installed")


def _add_reflection(server: object) -> None:
    """grpc.reflection.v1alpha, where its package is installed."""
    try:
        from grpc_reflection.v1alpha import reflection
    except ImportError:
        log.debug("no gRPC reflection: the package grpcio-reflection is not installed")
        return
    from sysvisor_runc.contract import sysvisor_protobuf_pb2 as _described  # noqa: F401  # in the descriptor pool now

    reflection.enable_server_reflection((*names.SERVICES, "grpc.health.v1.Health", reflection.SERVICE_NAME), server)

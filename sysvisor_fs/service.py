"""The gRPC service: messages in, calls of the registry out, its exceptions as status codes.

The only file of the daemon that names grpc, which takes a tenth of a second to load: `serve` is called when the file
systems have long been served. The server itself is reached through `sysvisor_fs.door` alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sysvisor_fs.contract import AlreadyRegistered, NotRegistered
from sysvisor_runc import log
from sysvisor_runc.aio.libraries import make_importable
from sysvisor_runc.contract import names

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from sysvisor_fs.contract import Registry
    from sysvisor_runc.contract.sysvisor_fs_pb2 import ContainerData, MountpointReq, MountpointResp, Response

    Context = object
    Method = Callable[[ContainerData], None]

_CALLS_AT_ONCE = 64
_ID_MAX = 255  # a container's file system is mounted on a directory of its name


class Service:
    """The methods. `counts`: (method, status code) → how many calls ended so, for the metrics."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.counts: dict[tuple[str, str], int] = {}

    def mountpoint(self, request: MountpointReq) -> MountpointResp:
        """Where the containers' trees are."""
        from sysvisor_runc.contract.sysvisor_fs_pb2 import MountpointResp

        return MountpointResp(Mountpoint=self._registry.mountpoint)

    def pre_register(self, data: ContainerData) -> None:
        """Have a tree for a container that is about to be made."""
        self._registry.pre_register(_valid_id(data), data.Netns)

    def register(self, data: ContainerData) -> None:
        """Learn who it is."""
        if data.InitPid <= 0:
            raise ValueError(f"InitPid: expected a process id, not {data.InitPid}")
        self._registry.register(
            _valid_id(data),
            init_pid=data.InitPid,
            uid=(names.unsigned(data.UidFirst), names.unsigned(data.UidSize)),
            gid=(names.unsigned(data.GidFirst), names.unsigned(data.GidSize)),
            proc_ro_paths=tuple(data.ProcRoPaths),
            proc_mask_paths=tuple(data.ProcMaskPaths),
            netns=data.Netns,
        )

    def update(self, data: ContainerData) -> None:
        """Learn when it was made."""
        if not data.HasField("Ctime"):
            raise ValueError("Ctime is missing")
        self._registry.update(_valid_id(data), data.Ctime.seconds * 1_000_000_000 + data.Ctime.nanos)

    def unregister(self, data: ContainerData) -> None:
        """Forget it."""
        self._registry.unregister(_valid_id(data))

    def count(self, method: str, code: str) -> None:
        """One more call of `method` has ended with `code`."""
        self.counts[method, code] = self.counts.get((method, code), 0) + 1


def _valid_id(data: ContainerData) -> str:
    text = data.Id
    if not 0 < len(text.encode()) <= _ID_MAX or "/" in text or "\0" in text or text in (".", ".."):
        raise ValueError(f"Id: expected a file's name of at most {_ID_MAX} bytes, not {text[:64]!r}")
    return text


class Server:
    """A running gRPC server. `service` has its counts."""

    def __init__(self, server: object, service: Service) -> None:
        self._server = server
        self.service = service

    async def stop(self, grace: float = 1.0) -> None:
        """Let the calls that are under way end, then stop."""
        await self._server.stop(grace)  # type: ignore[attr-defined]  # grpc has no types


async def serve(registry: Registry, address: str) -> Server:
    """Serve the contract on `address`, as gRPC spells it, under all the names of the service.

    Raises:
        OSError: the address cannot be had.
    """
    make_importable()
    # Else gRPC starts threads in every fork of ours, and with those no namespace can be entered.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    import grpc.aio

    service = Service(registry)
    server = grpc.aio.server(maximum_concurrent_rpcs=_CALLS_AT_ONCE, options=[("grpc.so_reuseport", 0)])
    methods = _methods(service)
    for name in names.SERVICES:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
    await _add_health(server)
    _add_reflection(server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(98, str(error), address) from None  # EADDRINUSE
    await server.start()
    return Server(server, service)


def _methods(service: Service) -> dict[str, object]:
    import grpc

    from sysvisor_runc.contract.sysvisor_fs_pb2 import ContainerData, MountpointReq, MountpointResp, Response

    async def get_mountpoint(request: MountpointReq, context: Context) -> MountpointResp:
        service.count("GetMountpoint", "OK")
        return service.mountpoint(request)

    handlers: dict[str, object] = {
        "GetMountpoint": grpc.unary_unary_rpc_method_handler(
            get_mountpoint,
            request_deserializer=MountpointReq.FromString,
            response_serializer=MountpointResp.SerializeToString,
        )
    }
    calls: dict[str, Method] = {
        "ContainerPreRegistration": service.pre_register,
        "ContainerRegistration": service.register,
        "ContainerUpdate": service.update,
        "ContainerUnregistration": service.unregister,
    }
    for name, call in calls.items():
        handlers[name] = grpc.unary_unary_rpc_method_handler(
            _answering(service, name, call),
            request_deserializer=ContainerData.FromString,
            response_serializer=Response.SerializeToString,
        )
    return handlers


def _answering(
    service: Service, name: str, call: Method
) -> Callable[[ContainerData, Context], Coroutine[object, object, Response]]:
    """The method `name`: its failures become status codes, and the text tells the cause."""

    async def answer(data: ContainerData, context: Context) -> Response:
        import grpc

        from sysvisor_runc.contract.sysvisor_fs_pb2 import Response

        try:
            call(data)
        except AlreadyRegistered as error:
            problem = f"{error} is registered already; is there a container of that name under another --root?"
            code = grpc.StatusCode.ALREADY_EXISTS
        except (NotRegistered, ProcessLookupError) as error:
            code, problem = grpc.StatusCode.NOT_FOUND, str(error)
        except ValueError as error:
            code, problem = grpc.StatusCode.INVALID_ARGUMENT, str(error)
        except OSError as error:
            code, problem = grpc.StatusCode.INTERNAL, str(error)
        except Exception as error:  # noqa: BLE001  # the boundary: a fault of ours is the caller's INTERNAL, and logged
            log.error(f"{name} of {data.Id!r}: {type(error).__name__}: {error}")
            code, problem = grpc.StatusCode.INTERNAL, f"internal error: {type(error).__name__}"
        else:
            service.count(name, "OK")
            return Response(Success=True)
        service.count(name, code.name)
        log.debug(f"{name} of {data.Id!r}: {code.name}: {problem}")
        abort: Callable[[object, str], Awaitable[Response]] = context.abort  # type: ignore[attr-defined]
        return await abort(code, problem)

    return answer


async def _add_health(server: object) -> None:
    """grpc.health.v1, where its package is installed: every name of the service is SERVING."""
    try:
        from grpc_health.v1 import health, health_pb2, health_pb2_grpc
    except ImportError:
        log.debug("no gRPC health service: the package grpcio-health-checking is not installed")
        return
    servicer = health.aio.HealthServicer()
    for name in ("", *names.SERVICES):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)


def _add_reflection(server: object) -> None:
    """grpc.reflection.v1alpha, where its package is installed."""
    try:
        from grpc_reflection.v1alpha import reflection
    except ImportError:
        log.debug("no gRPC reflection: the package grpcio-reflection is not installed")
        return
    from sysvisor_runc.contract import sysvisor_protobuf_pb2 as _described  # noqa: F401  # in the descriptor pool now

    reflection.enable_server_reflection((*names.SERVICES, "grpc.health.v1.Health", reflection.SERVICE_NAME), server)

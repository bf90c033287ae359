"""The gRPC client of sysvisor-fs, and those who make its calls for commands: an agent of one launch, or the supervisor.

The only file of the runtime that names grpc. A channel belongs to the process that made it: used in a forked child it
hangs, so it is never handed on. A daemon that speaks the three calls of 2019 is served as well as it can be.
"""

from __future__ import annotations

import gc
import os

from sysvisor_runc import log
from sysvisor_runc.aio.libraries import make_importable
from sysvisor_runc.aio.loop import asyncio, run
from sysvisor_runc.contract import names
from sysvisor_runc.errors import SysvisorError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.contract.sysvisor_fs_pb2 import ContainerData

    Request = dict[str, object]
    Answer = dict[str, object]

# What an era daemon has, all in one tree for everybody.
ERA_PATHS = ("proc/cpuinfo", "proc/sys", "proc/uptime")

_LINE_MAX = 1 << 20
_NOTICED = 0.05  # seconds in which a channel learns that its connection is lost
_SUCCESSION = 0.5  # seconds in which a daemon that has died is succeeded
_RETRY_DELAYS = (0.2, 1.0, 5.0, 30.0, 120.0)  # seconds


class CallError(SysvisorError):
    """A call has failed. `code` is the name of its status code."""

    def __init__(self, method: str, code: str, details: str) -> None:
        super().__init__(f"{method}: {details or code}")
        self.code = code


def _load() -> None:
    make_importable()
    # Else gRPC starts threads in every fork of a process that has it.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    import grpc.aio

    from sysvisor_runc.contract import sysvisor_fs_pb2

    del grpc, sysvisor_fs_pb2


class Client:
    """Calls one daemon.

    Attributes:
        era: it knows only the calls of 2019, which is found out by the first call; None until then.
    """

    def __init__(self, target: str) -> None:
        _load()
        import grpc.aio

        self._pid = os.getpid()
        self._service = names.SERVICES[0]
        # A daemon that is being started, or replaced, is there again in a moment: try often.
        options = [
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.min_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.enable_http_proxy", 0),
        ]
        self._channel = grpc.aio.insecure_channel(target, options=options)
        self.era: bool | None = None

    async def close(self) -> None:
        """Hang up."""
        await self._channel.close()

    async def prepare(self, container_id: str, netns: str) -> str:
        """Have a tree for a container; where the trees are. Raises CallError."""
        mountpoint = await self.mountpoint()
        if not self.era:
            data = _data(Id=container_id, Netns=netns)
            try:
                await self._call("ContainerPreRegistration", data)
            except CallError as error:
                if not await _may_be_repeated(error):
                    raise
                await self._again("ContainerPreRegistration", data, fine="ALREADY_EXISTS")
        return mountpoint

    async def register(self, data: ContainerData) -> None:
        """Say who it is. Raises CallError."""
        await self._idempotent("ContainerRegistration", data)

    async def update(self, data: ContainerData) -> None:
        """Say when it was made. Raises CallError."""
        await self._idempotent("ContainerUpdate", data)

    async def unregister(self, container_id: str) -> None:
        """Have it forgotten; fine if nobody remembers it. Raises CallError, soon where nobody listens."""
        data = _data(Id=container_id)
        try:
            await self._call("ContainerUnregistration", data, wait=False)
        except CallError as error:
            if error.code == "UNAVAILABLE":
                await asyncio.sleep(_SUCCESSION)
                await self._again("ContainerUnregistration", data, fine="NOT_FOUND", wait=False)
            elif error.code != "NOT_FOUND":
                raise

    async def mountpoint(self) -> str:
        """Where trees are. Raises CallError.

        Asked under each name that the service has had; a daemon that knows none of them for this is one of 2019.
        """
        from sysvisor_runc.contract.sysvisor_fs_pb2 import MountpointReq, MountpointResp

        if self.era:
            return names.MOUNTPOINT
        for service in (self._service, *names.SERVICES):
            try:
                answer = await self._unary(service, "GetMountpoint", MountpointReq(), MountpointResp.FromString)
            except CallError as error:
                if error.code == "UNIMPLEMENTED":
                    continue
                if not await _may_be_repeated(error):
                    raise
                answer = await self._unary(service, "GetMountpoint", MountpointReq(), MountpointResp.FromString)
            self._service, self.era = service, False
            assert isinstance(answer, MountpointResp)
            return answer.Mountpoint or names.MOUNTPOINT
        self.era = True
        return names.MOUNTPOINT

    async def _idempotent(self, method: str, data: ContainerData) -> None:
        try:
            await self._call(method, data)
        except CallError as error:
            if not await _may_be_repeated(error):
                raise
            await self._call(method, data)

    async def _again(self, method: str, data: ContainerData, *, fine: str, wait: bool = True) -> None:
        try:
            await self._call(method, data, wait=wait)
        except CallError as error:
            if error.code != fine:  # the first time it had arrived after all
                raise

    async def _call(self, method: str, data: ContainerData, *, wait: bool = True) -> None:
        from sysvisor_runc.contract.sysvisor_fs_pb2 import Response

        services = (self._service, *names.SERVICES) if self.era is not False else (self._service,)
        for service in services:
            try:
                await self._unary(service, method, data, Response.FromString, wait=wait)
            except CallError as error:
                if error.code == "UNIMPLEMENTED" and service != services[-1]:
                    continue
                raise
            self._service = service
            return

    async def _unary(
        self, service: str, method: str, message: object, parse: Callable[[bytes], object], *, wait: bool = True
    ) -> object:
        if os.getpid() != self._pid:
            raise RuntimeError("a gRPC channel was inherited by a forked process")
        import grpc

        call = self._channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=lambda one: one.SerializeToString(),
            response_deserializer=parse,
        )
        try:
            # Wait: the socket may be there before the server, and the server comes back in a moment.
            return await call(message, timeout=names.DEADLINE, wait_for_ready=wait)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            details = error.details()
            if code == "DEADLINE_EXCEEDED":
                details = f"no answer within {names.DEADLINE:g} s"
            raise CallError(method, code, details) from None


async def _may_be_repeated(error: CallError) -> bool:
    """Whether a call that failed so may succeed the next time, after a moment that it takes to know a lost connection.

    Else it would be tried on that one again.
    """
    if error.code == "UNAVAILABLE":
        await asyncio.sleep(_NOTICED)
    return error.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


def _data(**fields: object) -> ContainerData:
    from sysvisor_runc.contract.sysvisor_fs_pb2 import ContainerData

    return ContainerData(**fields)  # type: ignore[arg-type]  # the caller's field names are the message's


class Caller:
    """Carries out requests of `launch.fs`, with one client per daemon.

    Attributes:
        pending: containers that were announced and not kept yet, with the address: a launch that ends now has failed.
    """

    def __init__(self, *, resident: bool = True, told: Callable[[str, dict[str, object]], None] | None = None) -> None:
        """`told` hears of what becomes of each container: its id, and the data of an event."""
        self._resident = resident
        self._told = told
        self._clients: dict[str, Client] = {}
        self._retries: set[asyncio.Task[None]] = set()
        self.pending: dict[str, str] = {}

    async def carry_out(self, request: Request) -> Answer:
        """The answer to one request; a failed call is one, too."""
        try:
            return {"ok": True, **await self._dispatch(request)}
        except CallError as error:
            self._tell(str(request["id"]), "failed", error.message)
            return {"error": error.message, "code": 1, "status": error.code}
        except ImportError as error:
            return {"error": f"{error.name} is not installed", "code": 1, "unable": True}

    async def _dispatch(self, request: Request) -> Answer:
        target, name, call = str(request["target"]), str(request["id"]), request.get("call")
        if self._resident and target not in self._clients:
            await asyncio.to_thread(_load)  # a tenth of a second, in which others are served
        client = self._clients.get(target)
        if client is None:
            client = self._clients[target] = Client(target)
        if call == "prepare":
            self.pending[name] = target
            try:
                mountpoint = await client.prepare(name, str(request.get("netns") or ""))
            except CallError as error:
                if error.code != "ALREADY_EXISTS":
                    raise
                self.pending.pop(name)  # it is another's, or the supervisor's, which has been given up with it
                if not request.get("again"):
                    raise
                mountpoint = await client.mountpoint()
            return {"mountpoint": mountpoint, "era": bool(client.era)}
        if call == "register":
            try:
                await client.register(_registration(request))
            except CallError as error:
                if error.code != "ALREADY_EXISTS" or not request.get("again"):
                    raise
            self._tell(name, "register")
        elif call == "update":
            await client.update(_update(request))
        elif call == "keep":
            self.pending.pop(name, None)
        elif call == "unregister":
            self.pending.pop(name, None)
            await self._unregister(client, request)
        else:
            return {"error": f"unknown call {call!r}"}
        return {}

    @property
    def insisting(self) -> bool:
        """Whether an unregistration is still being tried."""
        return bool(self._retries)

    async def _unregister(self, client: Client, request: Request) -> None:
        """Unregister. What `insist` was asked for is tried again in the background, if there is one who lives long."""
        try:
            await client.unregister(str(request["id"]))
            self._tell(str(request["id"]), "unregister")
        except CallError as error:
            if not (self._resident and request.get("insist")):
                raise
            log.debug(f"{error.message}; to be tried again")
            self._start_insisting(client, str(request["id"]))

    def abandon(self, container_id: str, *, kept: bool) -> None:
        """Whoever announced it is gone: unless it was kept, its launch has failed without a word."""
        target = self.pending.pop(container_id, None)
        if target is not None and not kept:
            self._start_insisting(self._clients[target], container_id)

    def _start_insisting(self, client: Client, container_id: str) -> None:
        task = asyncio.get_running_loop().create_task(self._insist(client, container_id))
        self._retries.add(task)
        task.add_done_callback(self._retries.discard)

    async def _insist(self, client: Client, container_id: str) -> None:
        problem = ""
        for delay in (0, *_RETRY_DELAYS):
            await asyncio.sleep(delay)
            try:
                await client.unregister(container_id)
                self._tell(container_id, "unregister")
                return
            except CallError as error:
                problem = error.message
        log.warning(f"sysvisor-fs may still serve container {container_id!r}: {problem}")
        self._tell(container_id, "failed", problem)

    def _tell(self, container_id: str, action: str, error: str = "") -> None:
        if self._told is not None:
            self._told(container_id, {"action": action, **({"error": error} if error else {})})

    async def close(self) -> None:
        """Hang up on all daemons."""
        for task in self._retries:
            task.cancel()
        await asyncio.gather(*self._retries, return_exceptions=True)
        for client in self._clients.values():
            await client.close()


def _registration(request: Request) -> ContainerData:
    def ids(key: str) -> list[int]:
        value = request[key]
        assert isinstance(value, list)
        return [names.signed(int(number)) for number in value]

    uid, gid = ids("uid"), ids("gid")
    return _data(
        Id=request["id"],
        InitPid=request["initPid"],
        Hostname=request.get("hostname") or "",
        UidFirst=uid[0],
        UidSize=uid[1],
        GidFirst=gid[0],
        GidSize=gid[1],
        ProcRoPaths=request.get("readonlyPaths") or [],
        ProcMaskPaths=request.get("maskedPaths") or [],
        Netns=request.get("netns") or "",
    )


def _update(request: Request) -> ContainerData:
    from google.protobuf.timestamp_pb2 import Timestamp

    created = request["created"]
    assert isinstance(created, int)
    seconds, nanos = divmod(created, 1_000_000_000)
    return _data(Id=request["id"], Ctime=Timestamp(seconds=seconds, nanos=nanos))


def serve_agent(fd: int) -> None:
    """Be the agent of one launch: answer the lines that come in at `fd` until its end, then undo what is not kept."""
    # It makes a handful of calls; loading gRPC with the collector on takes a third longer.
    gc.disable()
    run(_serve_agent(fd), collects=False)
    os._exit(0)  # gRPC's threads would take their time


async def _serve_agent(fd: int) -> None:
    import json
    import socket

    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=fd), limit=_LINE_MAX)
    caller = Caller(resident=False)
    try:
        while line := await reader.readline():
            answer = await caller.carry_out(json.loads(line))
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
    except OSError:
        pass  # the command was killed
    for name, target in list(caller.pending.items()):
        await caller.carry_out({"call": "unregister", "id": name, "target": target})

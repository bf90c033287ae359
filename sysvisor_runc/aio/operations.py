"""What can be asked of the supervisor: the operations on its control socket, but for the journal's (aio.feed).

{"op": "adopt", "id": ID} with pidfd [, master]  → {"ok": true}
{"op": "wait", "id": ID}    → {"ok": true, "exit": {...} or null} once the container does not run (any more)
{"op": "attach", "id": ID}  → {"ok": true} with the terminal's master, then its output as mere bytes until its end
{"op": "logs", "id": ID}    → {"ok": true, "position": N}, then the output behind the first N bytes in the same way
{"op": "status"}            → {"ok": true, "pid": …, …}
{"op": "stop"}              → {"ok": true}; the supervisor ends, the containers run on
{"op": "fs", …}             → what aio.fs says
"""

from __future__ import annotations

import os
import resource
import sys

from sysvisor_runc.aio.control import Refusal
from sysvisor_runc.aio.loop import asyncio
from sysvisor_runc.supervise import RUNNING
from sysvisor_runc.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.aio.console_keeper import ConsoleKeeper
    from sysvisor_runc.aio.control import Answer, Call, Handler
    from sysvisor_runc.aio.supervisor import Supervisor


def handlers(supervisor: Supervisor, stop: Callable[[], None]) -> dict[str, Handler]:
    """Operation → what carries it out."""

    def adopt(call: Call) -> Answer:
        return _adopt(supervisor, call)

    async def wait(call: Call) -> Answer:
        return await _wait(supervisor, call)

    def attach(call: Call) -> None:
        console = _console(supervisor, call)
        call.line({"ok": True}, [console.master])
        console.attach(call.connection)

    def logs(call: Call) -> None:
        console = _console(supervisor, call)
        call.line({"ok": True, "position": console.log.position})
        console.attach(call.connection)

    def end(_call: Call) -> Answer:
        stop()
        return {"pid": os.getpid()}

    return {
        "adopt": adopt,
        "attach": attach,
        "logs": logs,
        "status": lambda _call: _status(supervisor),
        "stop": end,
        "wait": wait,
    }


def _adopt(supervisor: Supervisor, call: Call) -> Answer:
    container_id = call.text("id")
    fds = call.take_fds()
    for fd in fds[2:]:
        os.close(fd)
    pidfd, master = (*fds[:2], -1, -1)[:2]
    supervisor.adopt(container_id, pidfd, master)
    return {}


async def _wait(supervisor: Supervisor, call: Call) -> Answer:
    container_id = call.text("id")
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if supervisor.wait(container_id, lambda: None if ended.done() else ended.set_result(None)):
        await ended
    known = supervisor.known(container_id)
    return {"exit": None if known is None else known["exit"]}


def _console(supervisor: Supervisor, call: Call) -> ConsoleKeeper:
    container_id = call.text("id")
    container = supervisor.containers.get(container_id)
    if container is None:
        supervisor.known(container_id)  # raises where there is no such container
        raise Refusal(f"container {container_id!r} does not run under this supervisor")
    if container.console is None:
        hint = "its streams are those of `run --detach`; a terminal is kept where process.terminal is set"
        raise Refusal(f"no terminal of container {container_id!r} is kept", hint=hint)
    return container.console


def _status(supervisor: Supervisor) -> Answer:
    containers = supervisor.containers.values()
    return {
        "pid": os.getpid(),
        "version": VERSION,
        "root": supervisor.root,
        "loop": type(asyncio.get_running_loop()).__module__.partition(".")[0],
        "running": sum(c.state.phase == RUNNING for c in containers),
        "restarting": sum(c.state.phase != RUNNING for c in containers),
        "terminals": sum(c.console is not None for c in containers),
        "unwatched": dict(supervisor.unwatched),
        "launcher": supervisor.launcher.pid,
        "event": supervisor.journal.seq,
        "unwrittenEvents": supervisor.journal.unwritten,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "python": sys.version.split(maxsplit=1)[0],
    }

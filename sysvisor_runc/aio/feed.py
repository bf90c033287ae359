"""The journal on the control socket: the operations `events` and `publish`.

{"op": "events", "since": SEQ or null, "ids": [ID, ...] or null, "follow": true}
    → {"ok": true, "seq": N}, N being the last number so far, then one event per line; without `follow` only
      what is kept, and {"type": "end"} behind it
{"op": "publish", "kind": KIND, "id": ID, "data": {...}} → {"ok": true, "seq": N}
    with a `start` a pidfd of the init may come, by which its end is seen; "data" has its "pid" then
"""

from __future__ import annotations

from sysvisor_runc.aio.control import Refusal
from sysvisor_runc.jsonlight import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.aio.control import Answer, Call, Handler
    from sysvisor_runc.aio.journal import Journal

# What a command may say of itself. Ends, restarts and the rest are the supervisor's own to tell.
PUBLISHED = ("start", "exec", "pause", "resume", "update", "kill", "delete", "health")
_DATA_MAX = 4096


def handlers(
    journal: Journal, started: Callable[[str, int, int], None] | None = None, catch_up: Callable[[], None] | None = None
) -> dict[str, Handler]:
    """Operation → what carries it out.

    `started` is called with id, pid and a pidfd of an init that runs now; `catch_up` before a container is said to be
    gone, so that its end comes first.
    """

    async def events(call: Call) -> Answer | None:
        return await _events(journal, call)

    def publish(call: Call) -> Answer:
        if catch_up is not None and call.text("kind") == "delete":
            catch_up()
        answer = _publish(journal, call)
        if started is not None and call.text("kind") == "start" and call.fds:
            data = call.request.get("data")
            pid = data.get("pid") if isinstance(data, dict) else None
            if isinstance(pid, int):
                started(call.text("id"), pid, call.fds[0])
        return answer

    return {"events": events, "publish": publish}


async def _events(journal: Journal, call: Call) -> Answer | None:
    since, ids = call.request.get("since"), call.request.get("ids")
    if since is not None and not (isinstance(since, int) and since >= 0):
        raise Refusal("events: 'since' must be a number")
    if ids is not None and not (isinstance(ids, list) and all(isinstance(name, str) for name in ids)):
        raise Refusal("events: 'ids' must be a list of ids")
    subscription = journal.subscribe(since, ids, follow=call.request.get("follow") is not False)
    try:
        call.line({"ok": True, "seq": journal.seq})
        async for event in subscription:
            call.line(event)
            # A peer that does not read is waited for here; meanwhile the subscription counts what goes by.
            await call.drain()
        call.line({"type": "end"})
    finally:
        subscription.close()
    return None


def _publish(journal: Journal, call: Call) -> Answer:
    kind, container_id, data = call.text("kind"), call.text("id"), call.request.get("data", {})
    if kind not in PUBLISHED:
        raise Refusal(f"publish: no event of kind {kind!r} comes from a command")
    if not isinstance(data, dict) or len(dumps(data)) > _DATA_MAX:
        raise Refusal(f"publish: 'data' must be an object of at most {_DATA_MAX} bytes")
    return {"seq": journal.publish(kind, container_id, data)}

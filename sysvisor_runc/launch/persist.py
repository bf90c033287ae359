"""A container in the foreground that is started again when it ends, by the command itself: `run --restart`."""

from __future__ import annotations

import select
import time

from sysvisor_runc import log, supervise
from sysvisor_runc.launch.interrupt import check, descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.state.supervision import Restart


def persist(restart: Restart | None, run: Callable[[], tuple[int, bool]]) -> int:
    """Call `run` until the policy is content with the exit code that it gives; that code.

    Its second value tells whether somebody has asked for the end.

    Raises:
        SysvisorError: a run could not begin, or a signal came while none was under way.
    """
    given = restart or {"policy": "no", "retries": 0, "delay": 0.0}
    policy = supervise.Policy(given["policy"], given["retries"], given["delay"])
    state = supervise.State(policy)
    while True:
        state, _ = supervise.step(state, supervise.Started(time.monotonic()))
        code, asked = run()
        ended = supervise.Ended(time.monotonic(), supervise.Outcome(code), asked)
        state, actions = supervise.step(state, ended)
        delay = next((action.delay for action in actions if isinstance(action, supervise.Arm)), None)
        if delay is None:
            return code
        log.info(f"ended with {code}; started again in {delay:g} s")
        _wait(delay)
        state, _ = supervise.step(state, supervise.Elapsed())


def _wait(delay: float) -> None:
    """Let the back-off pass. Raises Interrupted where a signal comes first."""
    poll = select.poll()
    if descriptor() >= 0:
        poll.register(descriptor(), select.POLLIN)
    deadline = time.monotonic() + delay
    while (left := deadline - time.monotonic()) > 0:
        poll.poll(left * 1000)
        check()

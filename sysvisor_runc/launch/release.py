"""Let the init of a `run` go on, and see that its program runs. Its own module: `run` needs nothing else of `start`."""

from __future__ import annotations

import os

from sysvisor_runc.errors import LaunchError
from sysvisor_runc.launch.interrupt import check, wait_readable
from sysvisor_runc.launch.steps import reached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.launch.create import Created

START = b"0"
REPORT_MAX = 8


def release(created: Created) -> None:
    """Start the init of a `run`: it reads one byte, and the report ends once the user's program runs.

    Raises:
        LaunchError: the program could not be executed.
    """
    check()
    reached("start")
    found = created.plan.hooks["startContainer"]
    if found:
        from sysvisor_runc.launch.inside import run_start_hooks

        identity = created.plan.child.process.identity
        run_start_hooks(found, created.record, created.child.pidfd, identity, created.plan.seccomp)
    try:
        os.write(created.start, START)
    except BrokenPipeError:
        raise LaunchError("unable to start container process: its init was killed before it was started") from None
    os.close(created.start)
    os.set_blocking(created.report, True)
    wait_readable(created.report)  # startContainer hooks may take their time
    report = os.read(created.report, REPORT_MAX)
    os.close(created.report)
    if report:
        failure = created.conversation.stage_failure(report)
        # The program's own failure, told as init tells it when it was created before and nobody listens.
        failure.bare = failure.message.startswith("exec ")
        raise failure
    if created.fs is not None:
        created.fs.keep()
    # The container is there for everybody, first of all for its own poststart hooks.
    created.entry.unlock()
    reached("poststart")
    if created.plan.hooks["poststart"]:
        from sysvisor_runc.launch import hooks

        try:
            hooks.run_hooks(created.plan.hooks["poststart"], created.state("running"))
        except LaunchError:
            created.child.kill()
            hooks.run_hooks_tolerantly(created.plan.hooks["poststop"], created.state("stopped"))
            raise

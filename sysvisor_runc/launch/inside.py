"""Run startContainer hooks: programs of the container, which join it as `exec` does, with the process's own rights.

Init itself, waiting for `start`, could run them only if it were still an interpreter of the host's, among programs that
the host does not trust. Loaded only for containers with such hooks.
"""

from __future__ import annotations

import os

from sysvisor_runc import log
from sysvisor_runc.child.hook import HookError, await_hook
from sysvisor_runc.child.plan import ProcessPlan
from sysvisor_runc.errors import LaunchError
from sysvisor_runc.launch.conversation import init_failure
from sysvisor_runc.launch.interrupt import check, descriptor
from sysvisor_runc.launch.join import Joining, join
from sysvisor_runc.launch.ocistate import state_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.child.hook import Hook
    from sysvisor_runc.child.identity import Identity
    from sysvisor_runc.plan.seccomp_cache import Filter
    from sysvisor_runc.spec.types import Process
    from sysvisor_runc.state.record import Record


def run_start_hooks(hooks: list[Hook], record: Record, init: int, identity: Identity, seccomp: Filter | None) -> None:
    """Run them in order in the container whose init, behind the pidfd `init`, has not been started yet.

    They are under the container's filter, as its program is.

    Raises:
        LaunchError: one failed; the others are not run.
    """
    namespaces = (record["spec"].get("linux") or {}).get("namespaces") or ()
    own_pids = any(n["type"] == "pid" and not n.get("path") for n in namespaces)
    pid = 1 if own_pids else record["initPid"]
    state = state_json(record["id"], record["ociVersion"], "created", pid, record["bundle"], record["annotations"])
    for hook in hooks:
        log.debug(hook.describe())
        try:
            _run(hook, record, init, identity, state, seccomp)
        except HookError as error:
            check()
            raise init_failure(str(error)) from error


def _run(hook: Hook, record: Record, init: int, identity: Identity, state: bytes, seccomp: Filter | None) -> None:
    process = record["spec"]["process"]
    env = hook.env if hook.env is not None else process.get("env") or []
    plan = ProcessPlan(hook.args, [entry for entry in env if "=" in entry], "/", identity)
    bare: Process = {"args": hook.args, "cwd": "/", "user": process["user"]}
    stdin, output = os.pipe(), os.pipe()
    joining = Joining()
    plan.seccomp = joining.seccomp = seccomp
    joining.stdio = (stdin[0], output[1], output[1])
    try:
        child = join(record, init, bare, plan, joining, path=hook.path).child
    except LaunchError as error:
        for fd in (stdin[1], output[0]):
            os.close(fd)
        raise HookError(f"error running {hook.kind} hook #{hook.index}: {hook.path}: {error.message}") from error
    finally:
        os.close(stdin[0])
        os.close(output[1])
    await_hook(hook, child.pid, child.pidfd, stdin[1], output[0], state, abort=descriptor())

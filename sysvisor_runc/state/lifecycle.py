"""The life of a container: which statuses there are, what leads from one to the next, which command may act in which.

Everything that decides about a status is in this file, and it is pure; `state.observe` looks at the world.
"""

from __future__ import annotations

from sysvisor_runc.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.state.record import Status

# From a status, by an event, to the next; None is a container that does not exist. An event that is not listed cannot
# happen in that status. A paused container that was never started goes back to `created`: resume restores what was.
TRANSITIONS: dict[Status | None, dict[str, Status | None]] = {
    None: {"create": "creating"},
    "creating": {"ready": "created", "exit": "stopped", "delete --force": None},
    "created": {"start": "running", "pause": "paused", "exit": "stopped", "delete": None, "delete --force": None},
    "running": {"pause": "paused", "exit": "stopped", "delete --force": None},
    "paused": {"resume": "running", "resume unstarted": "created", "exit": "stopped", "delete --force": None},
    "stopped": {"delete": None, "delete --force": None},
}

# What each command says where it may not act, in runc's words; a status that is not listed allows the command.
_NOT_RUNNING = "container not running"
_NOT_PAUSED = "container not paused"
_NOT_STOPPED = "cannot delete container {id} that is not stopped: {status}"
REFUSALS: dict[str, dict[Status, str]] = {
    "start": {
        "creating": "cannot start a container in the creating state",
        "running": "cannot start an already running container",
        "paused": "cannot start a container in the paused state",
        "stopped": "cannot start a container that has stopped",
    },
    "exec": {
        "creating": "cannot exec in a container that is being created",
        "paused": "cannot exec in a paused container (use --ignore-paused to override)",
        "stopped": "cannot exec in a stopped container",
    },
    "kill": {"stopped": _NOT_RUNNING},
    "pause": {"creating": _NOT_RUNNING, "paused": "container already paused", "stopped": _NOT_RUNNING},
    "resume": {
        "creating": _NOT_PAUSED,
        "created": _NOT_PAUSED,
        "running": _NOT_PAUSED,
        "stopped": _NOT_PAUSED,
    },
    "update": {"creating": _NOT_RUNNING, "stopped": _NOT_RUNNING},
    "delete": {"creating": _NOT_STOPPED, "running": _NOT_STOPPED, "paused": _NOT_STOPPED},
    "delete --force": {},
    "events": {"creating": _NOT_RUNNING, "stopped": _NOT_RUNNING},
    "ps": {},
    "state": {},
}

_HINTS = {"delete": "kill it first, or use `delete --force`"}


def transition(status: Status | None, event: str) -> Status | None:
    """The status after `event`.

    Raises:
        StateError: `event` cannot happen in `status`.
    """
    row = TRANSITIONS[status]
    if event not in row:
        raise StateError(f"invalid state transition: {event} of a container that {_is(status)}")
    return row[event]


def _is(status: Status | None) -> str:
    return "does not exist" if status is None else f"is {status}"


def require(verb: str, status: Status, container_id: str) -> None:
    """Let `verb` act on a container in `status`, or say why not.

    Raises:
        StateError: it may not, in the words of `REFUSALS`.
    """
    refusal = REFUSALS[verb].get(status)
    if refusal is None:
        return
    raise StateError(refusal.format(id=container_id, status=status), hint=_HINTS.get(verb))


def status(stored: str, *, alive: bool, waiting: bool, frozen: bool, busy: bool) -> Status:
    """The status of a container, from the transition that was last stored and what is seen now.

    `alive`: its init runs, a zombie does not; `waiting`: init still waits for `start`; `frozen`: the freezer holds it;
    `busy`: a command holds its lock to change it.
    """
    if stored == "creating":
        # Neither a command nor an init: the command was killed. What it left can be deleted like a stopped container.
        return "creating" if busy or alive else "stopped"
    if not alive:
        return "stopped"
    if frozen:
        return "paused"
    return "created" if waiting else "running"

"""What a directory of the state root is that has no record of ours: one being made, damaged, or not ours at all.

Another runtime's containers are known by what it keeps, never shown, least of all deleted. Loaded only then.
"""

from __future__ import annotations

import os

from sysvisor_runc.errors import NoRecord, StateError

_FILE_OF_CRUN = "status"
_KEYS = frozenset(("init_process_pid", "pid"))  # runc's and youki's, in a file of our record's name


def explain(container_id: str, directory: int, root: str, problem: str, record: object) -> StateError:
    """The error for the open `directory` in the state root `root`, a NoRecord unless it is another runtime's.

    `problem` is what is wrong with its state.json, "" where it has none; `record` is what that holds, if anything.
    """
    if _is_foreign(directory, problem, record):
        return StateError(
            f"container {container_id!r} is another runtime's, whose state is in {root!r} as well",
            hint="use that runtime, or give another --root",
        )
    if problem:
        return NoRecord(
            f"state of container {container_id!r} {problem}", hint="remove the container with `delete --force`"
        )
    return NoRecord(
        f"container {container_id!r} has no state: it is being created, or its creation was interrupted",
        hint="remove what is left of it with `delete --force`",
    )


def _is_foreign(directory: int, problem: str, record: object) -> bool:
    if isinstance(record, dict):
        return "initPid" not in record and not _KEYS.isdisjoint(record)
    return not problem and _FILE_OF_CRUN in os.listdir(directory)

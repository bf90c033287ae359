"""Which containers have not ended: one that is asked for, or all of a state root."""

from __future__ import annotations

from sysvisor_runc import log
from sysvisor_runc.errors import StateError
from sysvisor_runc.state.observe import observe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sysvisor_runc.state.record import Record
    from sysvisor_runc.state.store import Store


def find_running(store: Store, container_id: str) -> Record:
    """The record of a container that has not ended.

    Raises:
        StateError: there is no such container, or `container with id X is not running`.
    """
    with store.open(container_id) as entry:
        record = entry.load()
        if observe(entry, record) == "stopped":
            raise StateError(f"container with id {container_id} is not running")
        return record


def all_running(store: Store) -> Iterator[Record]:
    """The records of all containers that have not ended; what cannot be read is left out, as is one being made."""
    try:
        ids = store.ids()
    except FileNotFoundError:
        return
    for container_id in ids:
        try:
            yield find_running(store, container_id)
        except StateError as error:
            log.debug(f"container {container_id}: {error}")

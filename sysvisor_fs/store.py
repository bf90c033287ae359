"""Registrations and stored values on disk, so that another daemon can go on with them.

    RUN/fs/             0700, on a tmpfs: it goes when the containers go
        names           the paths that kernels have been told, see fuse.names
        ID/record       what is known of a container, JSON
        ID/values       what it has stored, JSON; the values as latin-1

Every file is replaced as a whole by a rename.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from sysvisor_runc import log
from sysvisor_runc.jsonlight import dumps, loads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_ID = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
Record = dict[str, object]


def check_id(container_id: str) -> str:
    """`container_id`, if it can be one; ValueError otherwise."""
    if not container_id or container_id in (".", "..") or len(container_id) > 255 or not _ID.issuperset(container_id):
        raise ValueError(f"invalid container ID format: {container_id!r}")
    return container_id


class Store:
    """The directory."""

    def __init__(self, run_dir: str) -> None:
        self.directory = f"{run_dir}/fs"
        os.makedirs(self.directory, 0o700, exist_ok=True)

    def ids(self) -> list[str]:
        """The containers that have something here."""
        return [name for name in os.listdir(self.directory) if os.path.isdir(f"{self.directory}/{name}")]

    def load(self, container_id: str) -> Record:
        """Its record; empty where there is none that can be read."""
        return self._read(f"{self.directory}/{container_id}/record")

    def save(self, container_id: str, record: Record) -> None:
        """Keep its record."""
        os.makedirs(f"{self.directory}/{container_id}", 0o700, exist_ok=True)
        self._replace(f"{self.directory}/{container_id}/record", record)

    def remove(self, container_id: str) -> None:
        """It is over."""
        place = f"{self.directory}/{container_id}"
        for name in _listed(place):
            os.unlink(f"{place}/{name}")
        try:
            os.rmdir(place)
        except FileNotFoundError:
            pass

    def values(self, container_id: str) -> Values:
        """What it has stored; a change is kept at once."""
        path = f"{self.directory}/{container_id}/values"
        found = {key: text.encode("latin-1") for key, text in self._read(path).items() if isinstance(text, str)}
        return Values(found, lambda content: self._replace(path, content))

    @staticmethod
    def _read(path: str) -> Record:
        try:
            with open(path, "rb") as file:
                found = loads(file.read())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            log.warning(f"{path}: {error}")
            return {}
        return found if isinstance(found, dict) else {}

    @staticmethod
    def _replace(path: str, content: Record) -> None:
        partial = f"{path}.{threading.get_native_id()}"
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            rest = memoryview(dumps(content).encode())
            while rest:
                rest = rest[os.write(fd, rest) :]
        finally:
            os.close(fd)
        os.replace(partial, path)


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


class Values(dict[str, bytes]):
    """A container's values. Setting one has kept it when it returns: its writer is told only then."""

    def __init__(self, found: Iterable[tuple[str, bytes]] | dict[str, bytes], keep: Callable[[Record], None]) -> None:
        super().__init__(found)
        self._keep = keep
        self._lock = threading.Lock()  # held over a write to a tmpfs: the last to change is the last to be kept

    def __setitem__(self, key: str, value: bytes) -> None:
        with self._lock:
            super().__setitem__(key, value)
            self._keep({name: content.decode("latin-1") for name, content in self.items()})

    def __delitem__(self, key: str) -> None:
        with self._lock:
            super().__delitem__(key)
            self._keep({name: content.decode("latin-1") for name, content in self.items()})

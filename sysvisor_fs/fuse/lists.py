"""What open directories list, for as long as it is being fetched, within bounds.

A list that is gone is made anew when its reader goes on, so it may have holes then, as a directory that changes has.
"""

from __future__ import annotations

import threading

LISTS = 64  # of one connection
NAMES = 1 << 15  # in them together; the newest list may be longer

Names = list[tuple[str, int]]


class Lists:
    """Those of one connection, by handle. For any thread."""

    def __init__(self) -> None:
        self._kept: dict[int, Names] = {}  # the oldest first
        self._size = 0
        self._lock = threading.Lock()

    def keep(self, handle: int, names: Names) -> None:
        """Keep one, and drop the oldest where they are too many."""
        with self._lock:
            self._drop(handle)
            self._kept[handle] = names
            self._size += len(names)
            while len(self._kept) > LISTS or (self._size > NAMES and len(self._kept) > 1):
                self._drop(next(iter(self._kept)))

    def get(self, handle: int) -> Names | None:
        """It, if it is still there."""
        return self._kept.get(handle)

    def drop(self, handle: int) -> None:
        """Its directory is closed."""
        with self._lock:
            self._drop(handle)

    def _drop(self, handle: int) -> None:
        self._size -= len(self._kept.pop(handle, ()))

"""What has been acquired, so that a launch that fails leaves nothing behind. Imports nothing of ours but the log."""

from __future__ import annotations

import os

from sysvisor_runc import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_RESERVE = 5


class UndoStack:
    """Functions that give back what was acquired, run last first unless `keep` is called.

    It keeps some descriptors in reserve, since giving back what a command took that has run out of them needs a few.

    Use as a context manager: leaving it by an exception undoes everything; leaving it normally keeps everything.
    """

    __slots__ = ("_entries", "_reserve")

    def __init__(self) -> None:
        self._entries: list[tuple[str, Callable[[], object]]] = []
        self._reserve = [os.dup(2) for _ in range(_RESERVE)]

    def push(self, what: str, undo: Callable[[], object]) -> None:
        """Remember how to give `what` back."""
        self._entries.append((what, undo))

    def unwind(self) -> None:
        """Give everything back. A failure to do so is a warning: the first error is the one worth reporting."""
        self._release()
        while self._entries:
            what, undo = self._entries.pop()
            log.debug(f"undo: {what}")
            try:
                undo()
            except Exception as error:  # noqa: BLE001  # the boundary: the other entries must still be undone
                log.warning(f"while cleaning up {what}: {error}")

    def keep(self) -> None:
        """The launch has succeeded: nothing is to be undone any more."""
        self._entries.clear()
        self._release()

    def _release(self) -> None:
        while self._reserve:
            os.close(self._reserve.pop())

    def __enter__(self) -> UndoStack:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if kind is not None:
            self.unwind()

"""Threads for what may wait. Each answer has a deadline; a thread that is stuck is left behind and replaced."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 64  # threads, stuck ones included
_IDLE = 20.0  # seconds after which one that has nothing to do ends


class Workers:
    """Runs jobs, as many at a time as there are threads; threads come when they are needed and go when they are not."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._idle: set[threading.Thread] = set()  # a set, since adding to it and taking from it are atomic

    def submit(self, job: Callable[[], None]) -> None:
        """Run it soon. From one thread only."""
        self._jobs.put(job)
        if self._jobs.qsize() > len(self._idle) and len(self._threads) < MOST:
            thread = threading.Thread(target=self._work, name="fs-worker", daemon=True)
            self._threads.add(thread)
            thread.start()

    def _work(self) -> None:
        me = threading.current_thread()
        try:
            while True:
                self._idle.add(me)
                try:
                    job = self._jobs.get(timeout=_IDLE)
                except queue.Empty:
                    return
                finally:
                    self._idle.discard(me)
                job()
        finally:
            self._threads.discard(me)

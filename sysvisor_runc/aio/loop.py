"""The event loop: which implementation runs, and the one import of asyncio, which the others take from here.

The only file that names uvloop. It carries more per second once it runs, and takes 11-18 ms more to load: so a command
in the foreground stays on asyncio's own, and what lives long asks for uvloop.
"""

from __future__ import annotations

import gc
import os
import sys

from sysvisor_runc import log
from sysvisor_runc.aio.libraries import make_importable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import TypeVar

    T = TypeVar("T")

# Overrides the choice: "asyncio" or "uvloop".
VARIABLE = "SYSVISOR_RUNC_LOOP"

# A seventh of asyncio's import is the ssl module, which nothing here needs and asyncio can do without. None makes the
# import fail; whoever needs it later (gRPC does not) finds it as always.
_without_ssl = "ssl" not in sys.modules
if _without_ssl:
    sys.modules["ssl"] = None  # type: ignore[assignment]  # what import makes of None is in the language reference
try:
    import asyncio as asyncio
finally:
    if _without_ssl:
        del sys.modules["ssl"]

AbstractEventLoop = asyncio.AbstractEventLoop
TimerHandle = asyncio.TimerHandle


def run(
    main: Coroutine[object, object, T], *, prefer: str = "asyncio", endures: bool = False, collects: bool = True
) -> T:
    """Run `main` to its end on a loop of its own; `prefer` is "asyncio" or, used where it is installed, "uvloop".

    An exception that a callback lets through ends `main`, and is raised here. With `endures` it is logged and the loop
    goes on: what looks after many does not end for the sake of one. asyncio's own way would print a traceback, which
    code without line tables (tools/slim.py) does not have.

    The garbage collector is off in an installed program, whose commands are over before it would pay. What is over as
    soon although it needs a loop says so: not `collects`.
    """
    if collects:
        gc.enable()
    chosen = os.environ.get(VARIABLE) or prefer
    factory = None
    if chosen == "uvloop":
        make_importable()
        try:
            import uvloop

            factory = uvloop.new_event_loop
        except ImportError:
            pass  # it is optional
    failed: list[BaseException] = []

    def handler(loop: AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        detail = f": {type(error).__name__}: {error}" if error is not None else ""
        log.error(f"{context.get('message')}{detail}")
        if isinstance(error, BaseException) and not endures:
            failed.append(error)
            for task in asyncio.all_tasks(loop):
                task.cancel()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.get_loop().set_exception_handler(handler)
        try:
            return runner.run(main)
        except asyncio.CancelledError:
            if failed:
                raise failed[0] from None
            raise

"""The event loop: which implementation runs, and the one import of asyncio, which the others take from here.

The only file that names uvloop. It carries more per second once it runs, and takes 11-18 ms more to load: so a command
in the foreground stays on asyncio's own, and what lives long asks for uvloop.
"""

from __future__ import annotations

import gc
import os
import sys

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


def run(main: Coroutine[object, object, T], *, prefer: str = "asyncio") -> T:
    """Run `main` to its end on a loop of its own; `prefer` is "asyncio" or, used where it is installed, "uvloop"."""
    gc.enable()  # off in an installed program, whose commands are over before it would pay
    chosen = os.environ.get(VARIABLE) or prefer
    factory = None
    if chosen == "uvloop":
        make_importable()
        try:
            import uvloop

            factory = uvloop.new_event_loop
        except ImportError:
            pass  # it is optional
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)

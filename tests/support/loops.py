"""The event loops that everything on a loop is tested with."""

import importlib.util
from collections.abc import Callable, Coroutine

import pytest

LOOPS = ("asyncio", "uvloop")
Run = Callable[[Coroutine[object, object, None]], None]


def require(name: str) -> None:
    """Skip the test where this loop cannot be had."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed; to force it: make deps")

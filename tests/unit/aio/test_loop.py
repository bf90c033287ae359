"""What becomes of an exception that a callback lets through, on either loop."""

import asyncio

import pytest

from sysvisor_runc import log
from sysvisor_runc.aio.loop import run
from tests.support.loops import LOOPS, require


async def outlive_a_callback() -> str:
    def broken() -> None:
        raise ValueError("of a callback")

    asyncio.get_running_loop().call_soon(broken)
    await asyncio.sleep(0.2)
    return "went on"


@pytest.mark.parametrize("name", LOOPS)
def test_it_ends_a_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command in the foreground must not hang on a state that nobody leads on: the failure is its own."""
    require(name)
    monkeypatch.setenv("SYSVISOR_RUNC_LOOP", name)
    with pytest.raises(ValueError, match="of a callback"):
        run(outlive_a_callback())


@pytest.mark.parametrize("name", LOOPS)
def test_it_does_not_end_what_endures(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor says it on one line, and looks after the others."""
    require(name)
    monkeypatch.setenv("SYSVISOR_RUNC_LOOP", name)
    said: list[str] = []
    monkeypatch.setattr(log, "_sink", lambda level, message: said.append(message))
    assert run(outlive_a_callback(), endures=True) == "went on"
    assert len(said) == 1 and said[0].endswith("ValueError: of a callback")

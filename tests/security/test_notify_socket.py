"""What a container sends to the socket that stands in for the service manager's."""

import os
import pathlib
from collections.abc import Callable

import pytest

from tests.support.bundle import Bundle
from tests.support.notified import Manager
from tests.support.runtime import Runtime


@pytest.mark.parametrize("kind", ["runtime", "plain_runtime"])
def test_a_descriptor_that_takes_for_ever_to_close(
    request: pytest.FixtureRequest, hostile: Callable[..., Bundle], workplace: pathlib.Path, kind: str
) -> None:
    """A connection with SO_LINGER, sent along, does not hold the command that reads the message (unix(7))."""
    runtime: Runtime = request.getfixturevalue(kind)
    name = runtime.id()
    with Manager(str(workplace / "systemd")) as manager:
        environment = {**os.environ, "NOTIFY_SOCKET": manager.address}
        args = ("run", "--bundle", hostile("/attacker", "linger").path, name)
        running = runtime.start_background(*args, env=environment)
        assert manager.until("STATUS=slow") == ["STATUS=slow"]
        runtime("kill", name, "KILL")
        assert running.wait().returncode == 137

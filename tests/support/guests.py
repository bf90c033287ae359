"""Guests of user-mode-linux that run test files: two at a time, since each has one CPU and machines have more.

A test names its guest by the marker `guest` (the words of `Guest`) and gets what that printed from the fixture `said`.
The first such test of a session boots the guests of all of them, in their order.
"""

import pathlib
import sys
import sysconfig
import time

import pytest

from tests.support import uml

AT_ONCE = 2
# Of a guest's whole life, in seconds; most take half a minute on an idle machine, and three on a very busy one.
LIMIT = 400
ROOT = pathlib.Path(__file__).parents[2]


class Guest:
    """What a guest is to do.

    Attributes: `version`, its cgroup layout; `tests`, files and single tests below tests/; `select`, what of them (-k);
        `prepare`, a script before them; `boot`, more words for the kernel; `systemd`, whether that is its pid 1.
    """

    def __init__(
        self,
        version: str,
        *tests: str,
        select: str = "",
        prepare: str = "",
        boot: tuple[str, ...] = (),
        systemd: bool = False,
    ) -> None:
        self.version = version
        self.tests = tests
        self.select = select
        self.prepare = prepare
        self.boot = boot
        self.systemd = systemd

    def start(self, directory: pathlib.Path) -> uml.Running:
        """Boot it, with the interpreter that runs this and its packages: files of the host like any other."""
        python = f"env PYTHONPATH={sysconfig.get_paths()['purelib']} {sys.executable}"
        options = "-q -rs -p no:cacheprovider -o addopts=--import-mode=importlib"
        chosen = f"-k '{self.select}'" if self.select else ""
        tests = " ".join(f"'tests/{name}'" for name in self.tests)
        script = f"{self.prepare}\ncd {ROOT}\n{python} -m pytest {options} {chosen} {tests}\n"
        return uml.start(directory, self.version, script, *self.boot, systemd=self.systemd)


class Guests:
    """The guests of a session, by the id of the test that each belongs to."""

    def __init__(self, wanted: dict[str, Guest], directory: pathlib.Path) -> None:
        self._directory = directory
        self._lacking = {test: uml.lacking(systemd=guest.systemd) for test, guest in wanted.items()}
        self._waiting = [(test, guest) for test, guest in wanted.items() if not self._lacking[test]]
        self._running: dict[str, uml.Running] = {}
        self._ended: dict[str, uml.Running] = {}
        self._go_on()

    def said(self, test: str) -> str:
        """What a guest has printed, once it has ended; the tests in it must have passed. Skips where it cannot be."""
        if reason := self._lacking[test]:
            pytest.skip(reason)
        while test not in self._ended:
            self._go_on()
            time.sleep(0.05)
        text = self._ended[test].output()
        assert " passed" in text, text
        return text

    def close(self) -> None:
        """End those that still run: nobody has asked for what they say."""
        for running in self._running.values():
            running.kill()

    def _go_on(self) -> None:
        """Put aside those that have ended, or shall, and boot as many others."""
        for test, running in [*self._running.items()]:
            if running.ended(LIMIT):
                self._ended[test] = self._running.pop(test)
        while self._waiting and len(self._running) < AT_ONCE:
            test, guest = self._waiting.pop(0)
            place = self._directory / str(len(self._ended) + len(self._running))
            place.mkdir()
            self._running[test] = guest.start(place)


def named_by(items: list[pytest.Item]) -> dict[str, Guest]:
    """The guests that tests name by their marker."""
    found = {}
    for item in items:
        marker = item.get_closest_marker("guest")
        if marker is not None:
            found[item.nodeid] = Guest(*marker.args, **marker.kwargs)
    return found

"""A hostile container whose pid namespace others join, with CAP_SYS_PTRACE and no user namespace around it.

It sees every process that comes in, may trace it whatever its dumpable flag says, and looks for: the interpreter behind
/proc/PID/exe, the host's files behind /proc/PID/root and cwd, directories among its descriptors, and more capabilities
than it has (CVE-2016-9962, CVE-2019-5736).
"""

import os
import pathlib
import platform
from collections.abc import Callable

import pytest

from tests.support.bundle import Bundle
from tests.support.runtime import Runtime, wait_until
from tests.support.weakened import Weaken

Hostile = Callable[..., Bundle]
TRACING = ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_KILL"]
MASK = 1 << 19 | 1 << 1 | 1 << 2 | 1 << 5
KERNEL = tuple(map(int, platform.release().split(".")[:2]))


def limited(bundle: Bundle) -> Bundle:
    bundle.process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), TRACING)
    return bundle.save()


class Watcher:
    """The hostile container, and what it has seen."""

    def __init__(self, runtime: Runtime, hostile: Hostile, marker: pathlib.Path) -> None:
        self.bundle = limited(hostile("/attacker", "watch", "60000", str(marker)))
        self.loot = self.bundle.rootfs / "loot"
        self.name = runtime.id()
        runtime("run", "--detach", "--bundle", self.bundle.path, self.name)
        self.pid = runtime.state(self.name)["pid"]
        wait_until(self.loot.exists, what="the attacker's first word")

    def lines(self, what: str) -> set[str]:
        return {line.partition(" ")[2] for line in self.loot.read_text().splitlines() if line.startswith(what)}


@pytest.fixture
def marker(workplace: pathlib.Path) -> pathlib.Path:
    """A file of the host's, at a path that no rootfs has."""
    path = workplace / "only-on-the-host"
    path.write_text("")
    return path


def neighbour(hostile: Hostile, pid: int, *args: str) -> Bundle:
    """A container that joins the pid namespace of process `pid`."""
    bundle = limited(hostile(*args))
    for entry in bundle.linux["namespaces"]:
        if entry["type"] == "pid":
            entry["path"] = f"/proc/{pid}/ns/pid"
    return bundle.save()


def assert_nothing_of_the_host(watcher: Watcher) -> None:
    assert not {exe for exe in watcher.lines("exe") if "python" in exe}
    assert watcher.lines("host-root") == watcher.lines("host-cwd") == set()
    assert {directory for directory in watcher.lines("directory") if directory != "/"} == set()
    assert {caps for caps in watcher.lines("traced") if int(caps.split()[-1], 16) & ~MASK} == set()


@pytest.mark.skipif(KERNEL < (6, 18), reason="the kernel cannot show a foreign procfs; to force it: Linux 6.18")
def test_a_container_that_joins(plain_runtime: Runtime, hostile: Hostile, marker: pathlib.Path) -> None:
    """create, start, run and delete of containers in the hostile pid namespace give it nothing."""
    watcher = Watcher(plain_runtime, hostile, marker)
    for _ in range(5):
        plain_runtime("run", "--bundle", neighbour(hostile, watcher.pid, "/bin/true").path, plain_runtime.id())
    name = plain_runtime.id()
    plain_runtime("create", "--bundle", neighbour(hostile, watcher.pid, "/bin/sleep", "100").path, name)
    plain_runtime("start", name)
    assert plain_runtime("exec", name, "/bin/readlink", "/proc/self/ns/pid").stdout.strip() == os.readlink(
        f"/proc/{watcher.pid}/ns/pid"
    )
    plain_runtime("delete", "--force", name)
    assert watcher.lines("exe")  # it did look
    assert_nothing_of_the_host(watcher)


@pytest.mark.skipif(KERNEL < (6, 18), reason="the kernel cannot show a foreign procfs; to force it: Linux 6.18")
def test_where_the_child_lives_in_there_the_host_is_open(
    plain_runtime: Runtime, hostile: Hostile, marker: pathlib.Path, weaken: Weaken
) -> None:
    """The same with a child that enters the pid namespace at once, as every other runtime's does."""
    weak = weaken(plain_runtime, "launch/firststage.py", "and plan.child.late_pid and", "and not plan.child and")
    watcher = Watcher(weak, hostile, marker)
    for _ in range(20):
        weak("run", "--bundle", neighbour(hostile, watcher.pid, "/bin/true").path, weak.id(), check=False)
        if watcher.lines("host-root"):
            break
    assert watcher.lines("host-root")
    assert {exe for exe in watcher.lines("exe") if "python" in exe}


def test_a_process_that_joins(plain_runtime: Runtime, hostile: Hostile, marker: pathlib.Path) -> None:
    """exec into the hostile container, twenty times."""
    watcher = Watcher(plain_runtime, hostile, marker)
    for _ in range(20):
        plain_runtime("exec", watcher.name, "/bin/true", check=False)
    assert watcher.lines("exe") | watcher.lines("traced")
    assert_nothing_of_the_host(watcher)


def test_a_joiner_that_forks_first_can_be_robbed(
    plain_runtime: Runtime, hostile: Hostile, marker: pathlib.Path, weaken: Weaken
) -> None:
    """The same with a joining process that enters the pid namespace before it gives its capabilities away."""
    late = "late_fork = list(fork or ())"
    weak = weaken(plain_runtime, "child/process.py", late, "late_fork = []\n    start += list(fork or ())")
    watcher = Watcher(weak, hostile, marker)
    for _ in range(100):
        weak("exec", watcher.name, "/bin/true", check=False)
        if {caps for caps in watcher.lines("traced") if int(caps.split()[-1], 16) & ~MASK}:
            return
    pytest.skip("the attacker was never quick enough; to force it: run the test on an idle machine")

"""What the notes of a killed launch lead to: real cgroups and processes go, and nobody else's."""

import os
import pathlib
import signal
import subprocess
from collections.abc import Iterator

import pytest

from sysvisor_runc.cgroup.layout import detect
from sysvisor_runc.cgroup.manager import Manager
from sysvisor_runc.cgroup.paths import container_paths
from sysvisor_runc.launch import notes
from sysvisor_runc.launch.leftovers import remove_leftovers
from sysvisor_runc.state import subid
from sysvisor_runc.state.process import start_time
from sysvisor_runc.state.store import Entry, Store
from tests.support.runtime import Runtime

pytestmark = pytest.mark.root


@pytest.fixture
def entry(runtime: Runtime) -> Iterator[Entry]:
    """The directory of a container without a record."""
    with Store(str(runtime.root)).create(runtime.id()) as entry:
        yield entry
        entry.remove()


@pytest.fixture
def manager(runtime: Runtime, entry: Entry) -> Iterator[Manager]:
    """Its cgroups, made and noted."""
    layout = detect()
    manager = Manager(container_paths(layout, None, entry.id))
    manager.create(layout)
    notes.note(entry, "cgroup", *(f"{key} {path}" for key, path in manager.paths.items()))
    yield manager
    manager.kill_all(signal.SIGKILL)
    manager.remove()


def sleeper(manager: Manager | None = None) -> "subprocess.Popen[bytes]":
    """A process, in all cgroups of `manager`."""
    process = subprocess.Popen(["/bin/sleep", "1000"], stdin=subprocess.DEVNULL)
    for path in manager.directories() if manager else ():
        pathlib.Path(path, "cgroup.procs").write_text(str(process.pid))
    return process


def test_init_and_its_cgroups_go(entry: Entry, manager: Manager) -> None:
    """Everything in there dies, frozen or not, with cgroups that it made itself."""
    init, other = sleeper(manager), sleeper(manager)
    for path in manager.directories():
        os.mkdir(f"{path}/made-inside")
    manager.freeze()
    notes.note(entry, "init", f"{init.pid} {start_time(init.pid)}")
    remove_leftovers(entry)
    assert (init.wait(10), other.wait(10)) == (-signal.SIGKILL, -signal.SIGKILL)
    assert not manager.exists()


def test_before_the_clone_only_empty_cgroups_go(entry: Entry, manager: Manager) -> None:
    """A cgroup that the launch never found out to be somebody else's is left alone, with who is in there."""
    neighbour = sleeper(manager)
    remove_leftovers(entry)
    assert neighbour.poll() is None and manager.exists()
    neighbour.kill()
    neighbour.wait(10)
    remove_leftovers(entry)
    assert not manager.exists()


def test_a_pid_that_is_somebody_elses_by_now(entry: Entry) -> None:
    """The start time tells."""
    bystander = sleeper()
    notes.note(entry, "init", f"{bystander.pid} {start_time(bystander.pid) - 1}")
    remove_leftovers(entry)
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait(10)


def test_an_init_outside_of_every_cgroup(entry: Entry) -> None:
    """As of a caller that may not make cgroups: it is found by its pid."""
    init = sleeper()
    notes.note(entry, "init", f"{init.pid} {start_time(init.pid)}")
    remove_leftovers(entry)
    assert init.wait(10) == -signal.SIGKILL


def test_ids_are_free_again(entry: Entry) -> None:
    """Whatever was recorded for the directory."""
    taken = subid.allocate(entry.path)
    remove_leftovers(entry)
    owner = pathlib.Path(subid.registry_path(), f"{taken['uid']}-{taken['gid']}")
    assert not owner.is_symlink()


def test_notes_that_end_in_the_middle(entry: Entry) -> None:
    """What has no end of line was never written whole, and is not believed."""
    notes.note(entry, "rdt", "/somewhere")
    with open(f"{entry.path}/{notes.NAME}", "a") as file:
        file.write("init 12")
    assert notes.read(entry) == [("rdt", "/somewhere")]


def test_no_notes_at_all(entry: Entry) -> None:
    """The launch did not get far: nothing to do."""
    remove_leftovers(entry)
    assert notes.read(entry) == []

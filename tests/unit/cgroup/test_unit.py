"""Names and places of systemd units, how they are created, and annotations that become properties."""

import pytest

from sysvisor_runc.cgroup.layout import Hierarchy, Layout
from sysvisor_runc.cgroup.unit import Unit, annotated, container_unit, creation, expand_slice, unit_paths
from sysvisor_runc.errors import SpecError

V2 = Layout((), Hierarchy((), "/sys/fs/cgroup", "/sys/fs/cgroup/user.slice"))
V1 = Layout(
    (
        Hierarchy(("cpu", "cpuacct"), "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu"),
        Hierarchy(("name=systemd",), "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/systemd"),
    ),
    None,
)


@pytest.mark.parametrize(
    ("path", "user", "name", "slice_"),
    [
        (None, False, "runc-box.scope", "system.slice"),
        ("", True, "runc-box.scope", "user.slice"),
        ("machine.slice:libpod:1f", False, "libpod-1f.scope", "machine.slice"),
        ("::1f", False, "-1f.scope", "system.slice"),
        ("::1f", True, "-1f.scope", "user.slice"),
        ("-:a:b", False, "a-b.scope", "-.slice"),
        ("kube-pod1.slice:cri:x", False, "cri-x.scope", "kube-pod1.slice"),
        ("kube.slice:unused:kube-pod1.slice", False, "kube-pod1.slice", "kube.slice"),
    ],
)
def test_cgroups_path_names_the_unit(path: str | None, user: bool, name: str, slice_: str) -> None:
    """slice:prefix:name gives the unit's name and slice, as runc has it."""
    unit = container_unit(path, "box", user=user)
    assert (unit.name, unit.slice, unit.is_slice) == (name, slice_, name.endswith(".slice"))


@pytest.mark.parametrize(
    "path", ["/a/b", "a", "a:b", "a:b:c:d", "a.slice:b:", "a:b:c", "a/b.slice:c:d", "a.slice:b:c/d", "::-a.slice"]
)
def test_other_cgroups_paths_are_refused(path: str) -> None:
    """What is not of that form, or names no possible unit, is an error at linux.cgroupsPath."""
    with pytest.raises(SpecError) as caught:
        container_unit(path, "box")
    assert caught.value.path == "linux.cgroupsPath"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("-.slice", "/"),
        ("system.slice", "/system.slice"),
        ("a-b.slice", "/a.slice/a-b.slice"),
        ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"),
    ],
)
def test_dashes_are_levels(name: str, path: str) -> None:
    """The name of a slice says where it lies."""
    assert expand_slice(name) == path


@pytest.mark.parametrize("name", ["", ".slice", "a", "a.scope", "-a.slice", "a-.slice", "a--b.slice", "a/b.slice"])
def test_names_of_no_slice(name: str) -> None:
    """An empty level, a slash or another ending is no slice."""
    with pytest.raises(SpecError):
        expand_slice(name)


def test_paths_lie_below_the_service_manager() -> None:
    """A unit is at the same place in every hierarchy, below the cgroup of the manager that keeps it."""
    unit = Unit("runc-box.scope", "a-b.slice")
    assert unit_paths(V2, unit, "") == {"unified": "/sys/fs/cgroup/a.slice/a-b.slice/runc-box.scope"}
    assert unit_paths(V2, unit, "/user.slice/user@1.service") == {
        "unified": "/sys/fs/cgroup/user.slice/user@1.service/a.slice/a-b.slice/runc-box.scope"
    }
    place = "a.slice/a-b.slice/runc-box.scope"
    assert unit_paths(V1, unit, "/") == {
        "cpu": f"/sys/fs/cgroup/cpu/{place}",
        "cpuacct": f"/sys/fs/cgroup/cpu/{place}",
        "name=systemd": f"/sys/fs/cgroup/systemd/{place}",
    }
    assert unit_paths(V2, Unit("top.scope", "-.slice"), "/") == {"unified": "/sys/fs/cgroup/top.scope"}
    assert unit_paths(V2, Unit("x-y.slice", "x.slice"), "/") == {"unified": "/sys/fs/cgroup/x.slice/x-y.slice"}


def test_scope_gets_process_and_delegation() -> None:
    """A scope is made around a process, in its slice, and what is below is left to us."""
    properties = dict(creation(Unit("runc-box.scope", "a.slice"), "box", 42, v2=True))
    assert properties["PIDs"] == ("au", [42])
    assert properties["Slice"] == ("s", "a.slice")
    assert properties["Delegate"] == ("b", True)
    assert properties["DefaultDependencies"] == ("b", False)
    assert properties["Description"] == ("s", "libcontainer container box")
    assert {name for name in properties if name.endswith("Accounting")} == {
        "CPUAccounting", "IOAccounting", "MemoryAccounting", "TasksAccounting",
    }  # fmt: skip


def test_slice_gets_neither() -> None:
    """systemd takes no processes for a slice and delegates none; it only wants the slice above."""
    properties = dict(creation(Unit("a-b.slice", "system.slice"), "box", 42, v2=False))
    assert properties["Wants"] == ("as", ["a.slice"])
    assert not {"PIDs", "Slice", "Delegate"} & set(properties)
    assert "BlockIOAccounting" in properties


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("TimeoutStopUSec", "uint64 123456789", ("TimeoutStopUSec", ("t", 123456789))),
        ("TimeoutStopSec", "7", ("TimeoutStopUSec", ("t", 7_000_000))),
        ("RuntimeMaxSec", "double 1.5", ("RuntimeMaxUSec", ("t", 1_500_000))),
        ("CollectMode", "'inactive-or-failed'", ("CollectMode", ("s", "inactive-or-failed"))),
        ("DefaultDependencies", "true", ("DefaultDependencies", ("b", True))),
        ("Before", "['a.service', \"b.service\"]", ("Before", ("as", ["a.service", "b.service"]))),
        ("XSec", "5", ("XSec", ("i", 5))),
    ],
)
def test_annotations(name: str, text: str, expected: object) -> None:
    """Values have the type that they are written with; seconds become microseconds."""
    assert annotated({"other": "x", f"org.systemd.property.{name}": text}) == [expected]


@pytest.mark.parametrize(
    ("name", "text"),
    [("ab", "1"), ("", "1"), ("Collect Mode", "1"), ("Äöü", "1"), ("CollectMode", ""), ("TimeoutStopSec", "'x'"),
     ("TimeoutStopSec", "-1"), ("TasksMax", "byte 300")],
)  # fmt: skip
def test_bad_annotations_are_named(name: str, text: str) -> None:
    """An impossible name or value is an error that names the annotation."""
    with pytest.raises(SpecError) as caught:
        annotated({f"org.systemd.property.{name}": text})
    assert caught.value.path == f'annotations["org.systemd.property.{name}"]'

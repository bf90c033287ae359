"""Where linux.cgroupsPath and `exec --cgroup` lead."""

import pytest

from sysvisor_runc.cgroup.exec_paths import init_cgroup, sub_cgroup
from sysvisor_runc.cgroup.layout import Hierarchy, Layout
from sysvisor_runc.cgroup.paths import container_paths
from sysvisor_runc.errors import SpecError, UsageError

HYBRID = Layout(
    (Hierarchy(("cpu", "cpuacct"), "/c/cpu", "/c/cpu"), Hierarchy(("memory",), "/c/memory", "/c/memory/job")),
    Hierarchy((), "/c/unified", "/c/unified"),
)
V2 = Layout((), Hierarchy((), "/c", "/c/user.slice/a.scope"))
V2_TOP = Layout((), Hierarchy((), "/c", "/c"))


@pytest.mark.parametrize(
    ("path", "memory"),
    [
        ("/pod/a", "/c/memory/pod/a"),
        ("//pod/./a/", "/c/memory/pod/a"),
        ("pod/a", "/c/memory/job/pod/a"),
        (None, "/c/memory/job/id"),
        ("", "/c/memory/job/id"),
    ],
)
def test_v1_paths(path: str | None, memory: str) -> None:
    """Absolute paths count from the top of each hierarchy, others from the caller's own cgroup in it."""
    paths = container_paths(HYBRID, path, "id")
    assert paths["memory"] == memory
    assert set(paths) == {"cpu", "cpuacct", "memory", "unified"}
    assert paths["cpu"] == paths["cpuacct"]


@pytest.mark.parametrize(
    ("layout", "path", "expected"),
    [
        (V2, "/pod", "/c/pod"),
        (V2, "pod", "/c/user.slice/pod"),
        (V2, None, "/c/user.slice/id"),
        (V2_TOP, None, "/c/id"),
    ],
)
def test_v2_paths(layout: Layout, path: str | None, expected: str) -> None:
    """On v2 a relative path counts from the parent of the caller's cgroup, which holds no processes."""
    assert container_paths(layout, path, "id") == {"unified": expected}


@pytest.mark.parametrize("path", ["../x", "/..", "/a/../../b", "a/..", "/", ".", "a\nb", "a\0b"])
def test_bad_paths(path: str) -> None:
    """Paths that climb, name the top, or hold what no cgroup can be called are refused."""
    with pytest.raises(SpecError, match=r"linux\.cgroupsPath"):
        container_paths(HYBRID, path, "id")


PATHS = {"cpu": "/c/cpu/x", "cpuacct": "/c/cpu/x", "memory": "/c/memory/x"}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (["sub"], {"cpu": "/c/cpu/x/sub", "cpuacct": "/c/cpu/x/sub", "memory": "/c/memory/x/sub"}),
        (["/"], PATHS),
        (
            ["memory:m", "cpu,cpuacct:c"],
            {"cpu": "/c/cpu/x/c", "cpuacct": "/c/cpu/x/c", "memory": "/c/memory/x/m"},
        ),
    ],
)
def test_sub_cgroups(wanted: list[str], expected: dict[str, str]) -> None:
    """`--cgroup` takes one path for all hierarchies, or paths by controller."""
    assert sub_cgroup(PATHS, wanted) == expected


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([".."], "bad sub cgroup path"),
        (["memory:a/../../b"], "bad sub cgroup path"),
        (["whaaat:/"], "unknown controller whaaat"),
        (["memory:a", "memory:b"], "multiple times"),
        (["memory:a", "b"], "missing <controller>"),
        ([":a"], "empty <controller>"),
    ],
)
def test_bad_sub_cgroups(wanted: list[str], message: str) -> None:
    """What cannot be meant is refused with runc's words."""
    with pytest.raises(UsageError, match=message):
        sub_cgroup(PATHS, wanted)


def test_init_cgroup() -> None:
    """Only the unified line counts."""
    assert init_cgroup("4:memory:/a\n0::/pod/x/foo\n", "/c") == "/c/pod/x/foo"
    assert init_cgroup("4:memory:/a\n", "/c") is None

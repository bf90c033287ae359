"""Namespaces: new ones, joined ones, absent ones, clocks with an offset, and names."""

import pathlib
import subprocess
from collections.abc import Callable

import pytest

from tests.support.bundle import Bundle
from tests.support.inside import mounted, namespace, observe, start, status, user_namespace
from tests.support.runtime import Runtime

TIME = pathlib.Path("/proc/self/ns/time")
needs_time = pytest.mark.skipif(not TIME.exists(), reason="no time namespaces; to force it: make test-vm")
FILES = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "mount": "mnt", "cgroup": "cgroup", "user": "user"}


def test_each_named_namespace_is_new(plain_runtime: Runtime, bundle: Bundle) -> None:
    """All eight kinds in one container; time namespaces through the one for children as well."""
    user_namespace(bundle)
    kinds = [*FILES.values()]
    if TIME.exists():
        bundle.linux["namespaces"].append({"type": "time"})
        kinds += ["time", "time_for_children"]
    _, pid = start(plain_runtime, bundle)
    for file in kinds:
        assert namespace(pid, file) != namespace("self", file), file
    assert status(pid)["NSpid"].split()[-1] == "1"


def test_what_is_not_named_stays_the_callers(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Only the mount namespace is new here; a process list of the host shows in /proc."""
    bundle.linux["namespaces"] = [{"type": "mount"}]
    bundle.config.pop("hostname", None)
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] not in ("/sys", "/dev/mqueue")]
    seen = observe(plain_runtime, bundle, pid="echo $$", ns="readlink /proc/self/ns/pid; readlink /proc/self/ns/net")
    assert int(seen["pid"]) > 1
    assert seen["ns"].split() == [namespace("self", "pid"), namespace("self", "net")]


def test_exec_goes_where_init_is(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Also where that is a namespace which the container has from whoever ran it, and not from whoever calls exec."""
    bundle.linux["namespaces"] = [{"type": kind} for kind in ("mount", "pid")]
    bundle.config.pop("hostname", None)
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] not in ("/sys", "/dev/mqueue")]
    bundle.run("/bin/sleep", "1000")
    name = plain_runtime.id()
    command = ["unshare", "--net", "--uts", *plain_runtime.argv("run", "--detach", "--bundle", bundle.path, name)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    pid = plain_runtime.state(name)["pid"]
    for file in ("net", "uts", "ipc"):
        assert plain_runtime("exec", name, "readlink", f"/proc/self/ns/{file}").stdout.strip() == namespace(pid, file)
    assert namespace(pid, "net") != namespace("self", "net")


def test_without_a_mount_namespace_the_root_is_changed_all_the_same(plain_runtime: Runtime, bundle: Bundle) -> None:
    """By chroot: the container's files are seen, and where it has no mounts nothing is mounted on the host."""
    bundle.linux["namespaces"] = [{"type": "pid"}]
    for key in ("maskedPaths", "readonlyPaths"):
        bundle.linux.pop(key, None)
    bundle.config.pop("hostname", None)
    bundle.config["mounts"] = []
    before = pathlib.Path("/proc/self/mountinfo").read_text()
    seen = observe(plain_runtime, bundle, marker="ls /bin")
    assert "busybox" in seen["marker"]
    assert pathlib.Path("/proc/self/mountinfo").read_text() == before


def test_namespaces_of_another_process_are_joined(plain_runtime: Runtime, new_bundle: Callable[..., Bundle]) -> None:
    """By path, every kind at once; the pid namespace puts the program beside the other's init."""
    first, second = new_bundle(), new_bundle()
    user_namespace(first)
    _, pid = start(plain_runtime, first)
    second.linux["namespaces"] = [
        {"type": kind, "path": f"/proc/{pid}/ns/{file}"} for kind, file in FILES.items() if kind != "mount"
    ] + [{"type": "mount"}]
    second.config.pop("hostname", None)
    _, other = start(plain_runtime, second)
    for kind, file in FILES.items():
        assert (namespace(other, file) == namespace(pid, file)) is (kind != "mount"), kind
    assert len(status(other)["NSpid"].split()) == 2


def test_a_path_that_is_no_such_namespace_is_refused(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Missing, of another kind, and a plain file: each is named in the error."""
    for path in ("/proc/self/ns/absent", "/proc/1/ns/uts", "/etc/passwd"):
        bundle.linux["namespaces"] = [{"type": "mount"}, {"type": "network", "path": path}]
        bundle.config.pop("hostname", None)
        bundle.save()
        assert path in plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr


@needs_time
def test_clocks_have_their_offset(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Uptime and boot time move by days; a negative offset works as well."""
    bundle.linux["namespaces"].append({"type": "time"})
    bundle.linux["timeOffsets"] = {
        "monotonic": {"secs": 7 * 86400, "nanosecs": 500000000},
        "boottime": {"secs": 9 * 86400},
    }
    name, pid = start(plain_runtime, bundle)
    offsets = pathlib.Path(f"/proc/{pid}/timens_offsets").read_text().split()
    assert offsets == ["monotonic", "604800", "500000000", "boottime", "777600", "0"]
    uptime = float(plain_runtime("exec", name, "/bin/cat", "/proc/uptime").stdout.split()[0])
    assert uptime > 777600
    assert namespace(pid, "time") == namespace(pid, "time_for_children")


@needs_time
def test_an_impossible_offset_is_told(plain_runtime: Runtime, bundle: Bundle) -> None:
    """A clock cannot be moved before zero."""
    bundle.linux["namespaces"].append({"type": "time"})
    bundle.linux["timeOffsets"] = {"boottime": {"secs": -(1 << 40)}}
    bundle.save()
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert "time offsets" in error and "out of range" in error


@pytest.mark.skipif(TIME.exists(), reason="this kernel has time namespaces; to force it: one without CONFIG_TIME_NS")
def test_a_kernel_without_time_namespaces(plain_runtime: Runtime, bundle: Bundle) -> None:
    """It is told as such."""
    bundle.linux["namespaces"].append({"type": "time"})
    bundle.save()
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert "linux.namespaces" in error and "no time namespaces" in error


def test_the_cgroup_namespace_shows_the_containers_cgroup_as_root(plain_runtime: Runtime, bundle: Bundle) -> None:
    """It is unshared after the cgroup was joined."""
    seen = observe(plain_runtime, bundle, own="cat /proc/self/cgroup")
    assert {line.split(":", 2)[2] for line in seen["own"].splitlines()} == {"/"}


def test_names(plain_runtime: Runtime, bundle: Bundle) -> None:
    """hostname and domainname are the UTS namespace's, and not the host's."""
    bundle.config["hostname"] = "some-host"
    bundle.config["domainname"] = "some.domain"
    before = pathlib.Path("/proc/sys/kernel/hostname").read_text()
    seen = observe(
        plain_runtime, bundle, host="hostname", domain="cat /proc/sys/kernel/domainname", lo="ip link show lo"
    )
    assert (seen["host"], seen["domain"]) == ("some-host", "some.domain")
    assert "LOOPBACK,UP" in seen["lo"]
    assert pathlib.Path("/proc/sys/kernel/hostname").read_text() == before


def test_a_namespace_kept_alive_by_a_mount_is_joined(
    plain_runtime: Runtime, bundle: Bundle, request: pytest.FixtureRequest
) -> None:
    """As `ip netns` makes them, and it outlives the container."""
    name = plain_runtime.token
    subprocess.run(["ip", "netns", "add", name], check=True)
    request.addfinalizer(lambda: subprocess.run(["ip", "netns", "del", name], check=True))
    for entry in bundle.linux["namespaces"]:
        if entry["type"] == "network":
            entry["path"] = f"/run/netns/{name}"
    inode = pathlib.Path(f"/run/netns/{name}").stat().st_ino
    assert observe(plain_runtime, bundle, net="readlink /proc/self/ns/net")["net"] == f"net:[{inode}]"
    assert pathlib.Path(f"/run/netns/{name}").stat().st_ino == inode


def test_nothing_mounted_inside_shows_on_the_host(plain_runtime: Runtime, bundle: Bundle) -> None:
    """The container's mounts are its own, whatever the host's propagation."""
    _, pid = start(plain_runtime, bundle)
    assert "/dev/pts" in mounted(pid)
    assert not any(str(bundle.path) in path for path in mounted(1))

"""Masked and read-only paths, sysctls, hidden instances, and what sysvisor-fs serves."""

import pytest

from sysvisor_runc.syscont.convert import convert
from sysvisor_runc.syscont.facts import host_candidates, inside, is_below, kernel_version
from tests.unit.syscont import sample


def test_masked() -> None:
    """What breaks system containers is unmasked however it is spelled; the rest stays and is recorded."""
    given = ["/proc/kcore", "/proc/./kmsg", "/proc/kallsyms/", "/proc", "/proc/sys", "/proc/timer_list", "/proc/keys"]
    converted, traits = convert(sample.spec(linux={"maskedPaths": given}), sample.facts())
    assert converted["linux"]["maskedPaths"] == ["/proc/timer_list", "/proc/keys"]
    assert traits.masked_paths == ("/proc/timer_list", "/proc/keys")


def test_readonly() -> None:
    """/proc/sys and the cgroup mount become writable, the rest stays read-only."""
    given = ["/proc/bus", "/proc/sys", "/proc", "/sys/fs/cgroup", "/proc/sysrq-trigger"]
    converted, traits = convert(sample.spec(linux={"readonlyPaths": given}), sample.facts())
    assert converted["linux"]["readonlyPaths"] == ["/proc/bus", "/proc/sysrq-trigger"]
    assert traits.readonly_paths == ("/proc/bus", "/proc/sysrq-trigger")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0 2147483647", "0 65535"),
        ("0\t100", "0\t100"),
        ("1 0", "1 0"),
        ("70000 80000", "65535 65535"),
        ("x", "x"),
    ],
)
def test_ping_groups(value: str, expected: str) -> None:
    """Docker's range of pinging groups ends where the mapping does."""
    for name in ("net.ipv4.ping_group_range", "net/ipv4/ping_group_range"):
        converted, _ = convert(sample.spec(linux={"sysctl": {name: value, "kernel.shm": "0 99999"}}), sample.facts())
        assert converted["linux"]["sysctl"] == {name: expected, "kernel.shm": "0 99999"}


def test_hidden_instances() -> None:
    """A procfs and a sysfs with nothing on them, both writable, behind a directory without any mode bit."""
    converted, traits = convert(sample.spec("/sbin/init"), sample.facts(args0="/lib/systemd/systemd"))
    found = sample.by_destination(converted)
    assert traits.hidden_instances
    assert "mode=000" in found["/dev/.sysvisor"]["options"]
    for kind, place in (("proc", "/dev/.sysvisor/proc"), ("sysfs", "/dev/.sysvisor/sys")):
        assert found[place]["type"] == kind
        assert "ro" not in found[place]["options"]
        assert not any(other.startswith(place + "/") for other in found)
    # The first sysfs mount decides whether the superblock that all of them share is read-only.
    assert sample.places(converted).index("/dev/.sysvisor/sys") < sample.places(converted).index("/sys")


def test_without_the_daemon() -> None:
    """The plain procfs stays."""
    _, traits = convert(sample.spec(), sample.facts())
    assert traits.fs_mounts == ()


def test_with_the_daemon() -> None:
    """Its files are bound below /proc and /sys; a mount of the spec's there wins, one below waits."""
    mounts = [sample.bind("/x", "/proc/uptime"), sample.tmpfs("/sys/kernel/config")]
    converted, traits = convert(sample.spec(mounts=mounts), sample.facts(fs_mountpoint="/var/lib/sysvisorfs/"))
    found = sample.by_destination(converted)
    assert found["/proc/meminfo"]["source"] == "/var/lib/sysvisorfs/web/proc/meminfo"
    assert found["/proc/uptime"]["source"] == "/x"
    assert "/proc/uptime" not in traits.fs_mounts
    assert traits.deferred_mounts == ("/sys/kernel/config",)
    places = sample.places(converted)
    assert places.index("/proc") < places.index("/proc/sys")
    assert places.index("/sys/kernel") < places.index("/sys/kernel/config")


def test_kernel_version() -> None:
    """Releases of all kinds have two leading numbers."""
    assert kernel_version("6.18.44-fc-v595") == (6, 18)
    assert kernel_version("6.1-rc3") == (6, 1)


def test_host_candidates() -> None:
    """Modules and the header directories of Debian, Ubuntu and Fedora are looked for."""
    debian = host_candidates("6.1.0-13-amd64")
    assert "/lib/modules/6.1.0-13-amd64" in debian
    assert "/usr/src/linux-headers-6.1.0-13-common" in debian
    assert "/usr/src/linux-kbuild-6.1" in debian
    assert "/usr/src/linux-headers-6.5.0-14" in host_candidates("6.5.0-14-generic")
    assert "/usr/src/kernels/6.5.6-300.fc39.x86_64" in host_candidates("6.5.6-300.fc39.x86_64")


def test_places() -> None:
    """Destinations are compared after tidying."""
    assert inside("//a/./b/../c/") == "/a/c"
    assert inside("proc") == "/proc"
    assert is_below("/a/b", "/a")
    assert is_below("/a", "/")
    assert not is_below("/ab", "/a")
    assert not is_below("/a", "/a")

"""System containers in a network namespace that the host has made, as Podman's are, or in more of them, as CRI-O's."""

import pathlib
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support.bundle import Bundle
from tests.support.inside import observe, start
from tests.support.runtime import Runtime, wait_until


@pytest.fixture
def host_made() -> Iterator[str]:
    """The directory of a process' namespaces, of which network, ipc and uts belong to the host's user namespace."""
    script = "ip link set lo up; exec sleep 1000"
    holder = subprocess.Popen(["unshare", "--net", "--ipc", "--uts", "sh", "-c", script])
    try:
        wait_until(lambda: pathlib.Path(f"/proc/{holder.pid}/comm").read_text() == "sleep\n", what="the network")
        yield f"/proc/{holder.pid}/ns"
    finally:
        holder.kill()
        holder.wait()


@pytest.fixture
def joined(bundle: Bundle, host_made: str) -> Bundle:
    for namespace in bundle.linux["namespaces"]:
        if namespace["type"] == "network":
            namespace["path"] = f"{host_made}/net"
    return bundle


def in_pod(bundle: Bundle, host_made: str) -> Bundle:
    """Have the bundle join all three."""
    for namespace in bundle.linux["namespaces"]:
        if (file := {"network": "net", "ipc": "ipc", "uts": "uts"}.get(namespace["type"])) is not None:
            namespace["path"] = f"{host_made}/{file}"
    return bundle


def test_what_works(runtime: Runtime, joined: Bundle) -> None:
    """The devices are those of the network, sysctls of the spec are set, low ports can be opened."""
    joined.linux["sysctl"] = {"net.core.somaxconn": "77", "net.ipv4.ping_group_range": "0 5"}
    seen = observe(
        runtime,
        joined,
        devices="ls /sys/class/net",
        backlog="cat /proc/sys/net/core/somaxconn",
        groups="cat /proc/sys/net/ipv4/ping_group_range",
        port="timeout 1 nc -l -p 80 </dev/null; echo $?",
    )
    assert seen["devices"].split() == ["lo"]
    assert seen["backlog"] == "77"
    assert seen["groups"].split() == ["0", "5"]
    assert "bind" not in seen["port"]


def test_what_does_not(runtime: Runtime, joined: Bundle) -> None:
    """The network cannot be changed, and the host's sysfs neither written to nor made writable."""
    seen = observe(
        runtime,
        joined,
        link="ip link set lo down",
        setting="echo 5 > /proc/sys/net/core/somaxconn",
        remount="mount -o remount,rw /sys",
        bind="mkdir -p /mnt && mount --rbind /sys /mnt && mount -o remount,bind,rw /mnt",
        written="echo x > /sys/kernel/uevent_seqnum",
        new="umount -l /mnt; mount -t sysfs sysfs /mnt",
    )
    assert "not permitted" in seen["link"].lower()
    for name in ("setting", "remount", "bind", "written", "new"):
        assert any(word in seen[name].lower() for word in ("denied", "not permitted", "read-only")), (name, seen[name])


def test_it_warns(runtime: Runtime, joined: Bundle) -> None:
    """What cannot be done inside is said."""
    result = runtime("run", "-b", joined.run("/bin/true").path, runtime.id())
    assert "devices, routes and filters cannot be changed inside" in result.stderr


def test_all_of_a_pod(runtime: Runtime, joined: Bundle, host_made: str) -> None:
    """Where ipc and uts are the host's making too, as in CRI-O's pods, names and their sysctls are set all the same,
    messages can be passed, and nothing is said: it would be in the container's log."""
    in_pod(joined, host_made)
    joined.config["hostname"] = "pod1"
    joined.config["domainname"] = "cluster1"
    joined.linux["sysctl"] = {"kernel.msgmax": "4096", "fs.mqueue.msg_max": "7", "net.core.somaxconn": "77"}
    script = "hostname; cat /proc/sys/kernel/domainname /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max"
    script += " /proc/sys/net/core/somaxconn; touch /dev/mqueue/x && ls /dev/mqueue"
    result = runtime("run", "-b", joined.sh(script).path, runtime.id())
    assert result.stdout.split() == ["pod1", "cluster1", "4096", "7", "77", "x"]
    assert result.stderr == ""


def test_a_pod_has_one_user_namespace(runtime: Runtime, new_bundle: Callable[..., Bundle], host_made: str) -> None:
    """Who comes into namespaces of the host's where another system container lives has its ids, and opens its queues;
    once that is gone the next one has ids of its own."""
    first, pid = start(runtime, in_pod(new_bundle(), host_made))
    own = pathlib.Path(f"/proc/{pid}/uid_map").read_text().split()
    runtime("exec", first, "sh", "-c", "umask 077; : > /dev/mqueue/q")
    script = "cat /proc/self/uid_map; cat /dev/mqueue/q >/dev/null && echo opened; ls /sys/class/net"
    result = runtime("run", "-b", in_pod(new_bundle(), host_made).sh(script).path, runtime.id())
    assert result.stdout.split() == [*own, "opened", "lo"]
    assert result.stderr == ""
    runtime("delete", "--force", first)
    result = runtime("run", "-b", in_pod(new_bundle(), host_made).sh(script).path, runtime.id())
    assert "opened" not in result.stdout

"""sysctl: written in the container's namespaces, never on the host."""

import pathlib

import pytest

from tests.support.bundle import Bundle
from tests.support.inside import observe, user_namespace
from tests.support.runtime import Runtime

VALUES = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.conf.lo.rp_filter": "2",
    "net/ipv4/ip_local_port_range": "40000\t50000",
    "kernel.shm_rmid_forced": "1",
    "kernel.msgmax": "4444",
    "kernel.sem": "251\t32001\t501\t129",
    "fs.mqueue.msg_max": "33",
    "kernel.domainname": "from.sysctl",
}


def file(key: str) -> str:
    return "/proc/sys/" + (key if "/" in key else key.replace(".", "/"))


def read(key: str) -> str:
    return pathlib.Path(file(key)).read_text().strip()


def test_values_are_set(plain_runtime: Runtime, bundle: Bundle) -> None:
    """With dots or slashes, for the network, IPC and UTS namespaces, although /proc/sys is read-only in there."""
    bundle.linux["sysctl"] = VALUES
    before = [read(key) for key in VALUES]
    seen = observe(plain_runtime, bundle, **{f"k{n}": f"cat {file(key)}" for n, key in enumerate(VALUES)})
    assert [seen[f"k{n}"] for n in range(len(VALUES))] == list(VALUES.values())
    assert [read(key) for key in VALUES] == before


def test_in_a_user_namespace(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Its own root may set what belongs to its namespaces, and the limits of its user namespace."""
    user_namespace(bundle)
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1", "user.max_net_namespaces": "17", "kernel.shmmni": "99"}
    seen = observe(plain_runtime, bundle, forward=f"cat {file('net.ipv4.ip_forward')}",
                   user=f"cat {file('user.max_net_namespaces')}", ipc=f"cat {file('kernel.shmmni')}")  # fmt: skip
    assert (seen["forward"], seen["user"], seen["ipc"]) == ("1", "17", "99")


def test_a_masked_proc_does_not_mislead(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Values go through a procfs of our own: what the spec mounts over /proc/sys is left alone (CVE-2025-52881)."""
    trap = bundle.path / "trap"
    (trap / "net/ipv4").mkdir(parents=True)
    (trap / "net/ipv4/ip_forward").write_text("untouched")
    bundle.config["mounts"].append({"destination": "/proc/sys", "source": str(trap), "options": ["bind"]})
    bundle.linux["readonlyPaths"] = []
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    observe(plain_runtime, bundle, nothing="true")
    assert (trap / "net/ipv4/ip_forward").read_text() == "untouched"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("net.ipv4.no_such_thing", "1", "no such file"),
        ("kernel.msgmax", "nonsense", "invalid argument"),
        ("net.ipv4.ip_local_port_range", "9 1", "invalid argument"),
    ],
)
def test_what_the_kernel_refuses(plain_runtime: Runtime, bundle: Bundle, key: str, value: str, words: str) -> None:
    """The error names key and value."""
    bundle.linux["sysctl"] = {key: value}
    bundle.save()
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert f"{key}={value}" in error and words in error


@pytest.mark.parametrize("key", ["vm.overcommit_memory", "kernel.panic", "kernel.hostname", "user.max_user_namespaces"])
def test_what_is_the_hosts(plain_runtime: Runtime, bundle: Bundle, key: str) -> None:
    """A key without a namespace of the container's is refused before anything is made."""
    before = read(key)
    bundle.linux["sysctl"] = {key: "1"}
    bundle.save()
    assert f'linux.sysctl["{key}"]' in plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert read(key) == before

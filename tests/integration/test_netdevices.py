"""netDevices: devices of the host that move into the container, keep what is theirs, and return if a launch fails."""

import json
import pathlib
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.bundle import Bundle
from tests.support.inside import observe, start, user_namespace
from tests.support.runtime import Runtime

pytest.importorskip("pyroute2", reason="no pyroute2; to force it: make deps")


def ip(*args: str, pid: int = 0) -> Any:
    """`ip -j …`, in the network namespace of a process."""
    enter = ["nsenter", f"--net=/proc/{pid}/ns/net"] if pid else []
    done = subprocess.run([*enter, "ip", "-j", *args], capture_output=True, text=True, check=True)
    return json.loads(done.stdout or "[]")


@pytest.fixture
def link(plain_runtime: Runtime) -> Iterator[Callable[[], str]]:
    """Makes veth devices of the host; they are gone afterwards."""
    made: list[str] = []

    def make() -> str:
        name = f"sv{plain_runtime.token[4:10]}{len(made)}"
        ip("link", "add", name, "type", "veth", "peer", "name", f"{name}p")
        made.append(name)
        return name

    yield make
    for name in made:  # with the peer the device itself goes, wherever it is
        subprocess.run(["ip", "link", "del", f"{name}p"], check=False, capture_output=True)


def there(name: str) -> bool:
    return pathlib.Path(f"/sys/class/net/{name}").exists()


@pytest.mark.parametrize("userns", [False, True])
def test_a_device_moves(plain_runtime: Runtime, bundle: Bundle, link: Callable[[], str], userns: bool) -> None:
    """Under its name or another, up, with MTU, hardware address and global addresses, but without link-local ones."""
    if userns:
        user_namespace(bundle)
    same, renamed = link(), link()
    for argument in ("mtu", "1789"), ("address", "00:11:22:33:44:55"):
        ip("link", "set", "dev", renamed, *argument)
    for address in ("10.98.76.5/24", "192.0.2.7/32", "2001:db8::5/64"):
        ip("address", "add", address, "dev", renamed)
    ip("address", "add", "169.254.77.1/16", "dev", renamed, "scope", "link")
    ip("address", "add", "10.1.1.1", "peer", "10.1.1.2", "dev", renamed)
    bundle.linux["netDevices"] = {same: {}, renamed: {"name": "inside0"}}
    _, pid = start(plain_runtime, bundle)
    assert not there(same) and not there(renamed)
    assert "UP" in ip("link", "show", same, pid=pid)[0]["flags"]
    found = ip("address", "show", "dev", "inside0", pid=pid)[0]
    assert "UP" in found["flags"]
    assert (found["mtu"], found["address"]) == (1789, "00:11:22:33:44:55")
    shown = {(a["local"], a["prefixlen"], a.get("address")) for a in found["addr_info"] if a["scope"] == "global"}
    assert shown == {("10.98.76.5", 24, None), ("192.0.2.7", 32, None), ("2001:db8::5", 64, None),
                     ("10.1.1.1", 32, "10.1.1.2")}  # fmt: skip
    assert not [a for a in found["addr_info"] if a["local"] == "169.254.77.1"]


def test_into_a_namespace_that_exists(
    plain_runtime: Runtime, bundle: Bundle, link: Callable[[], str], request: pytest.FixtureRequest
) -> None:
    """A network namespace given by path keeps the device when the container is gone."""
    namespace, name = plain_runtime.token, link()
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    request.addfinalizer(lambda: subprocess.run(["ip", "netns", "del", namespace], check=True))
    for entry in bundle.linux["namespaces"]:
        if entry["type"] == "network":
            entry["path"] = f"/run/netns/{namespace}"
    bundle.linux["netDevices"] = {name: {}}
    assert name in observe(plain_runtime, bundle, links="ip link")["links"]
    shown = subprocess.run(["ip", "-n", namespace, "link"], capture_output=True, text=True, check=True).stdout
    assert name in shown


def test_a_device_that_is_not_there(plain_runtime: Runtime, bundle: Bundle, link: Callable[[], str]) -> None:
    """It is named, and what had moved before it is back on the host, up and with its addresses."""
    name = link()
    ip("address", "add", "10.98.75.5/24", "dev", name)
    bundle.linux["netDevices"] = {name: {"name": "x"}, "sv-not-there": {}}
    bundle.save()
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert "no such network device: 'sv-not-there'" in error
    assert [a["local"] for a in ip("-4", "address", "show", "dev", name)[0]["addr_info"]] == ["10.98.75.5"]
    assert "UP" in ip("link", "show", name)[0]["flags"]


def test_a_name_that_is_taken(plain_runtime: Runtime, bundle: Bundle, link: Callable[[], str]) -> None:
    """`lo` is in every network namespace: the device stays on the host."""
    name = link()
    bundle.linux["netDevices"] = {name: {"name": "lo"}}
    bundle.save()
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert name in error and "'lo'" in error and "exists" in error
    assert there(name)


def test_a_launch_that_fails_later_gives_it_back(
    plain_runtime: Runtime, bundle: Bundle, link: Callable[[], str]
) -> None:
    """As everything that a launch takes."""
    name = link()
    bundle.linux["netDevices"] = {name: {"name": "other"}}
    bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
    bundle.save()
    plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id())
    assert there(name)


@pytest.mark.parametrize(
    ("devices", "words"),
    [({"a/b": {}}, "invalid network device name"), ({"eth0": {"name": "x" * 16}}, "invalid network device name")],
)
def test_names_that_no_device_has(
    plain_runtime: Runtime, bundle: Bundle, devices: dict[str, object], words: str
) -> None:
    """Told before anything is made."""
    bundle.linux["netDevices"] = devices
    bundle.save()
    assert words in plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr


def test_without_a_network_namespace(plain_runtime: Runtime, bundle: Bundle) -> None:
    """There is nowhere to move to."""
    bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != "network"]
    bundle.linux["netDevices"] = {"eth0": {}}
    bundle.save()
    assert "without a NET namespace" in plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr

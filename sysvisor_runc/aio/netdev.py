"""Network devices that move into a container (`linux.netDevices`): the one file that uses pyroute2.

Its import costs 150 ms, so it happens inside a function, and while the child has been cloned already. Sockets are
opened inside a network namespace by our own setns(2): a socket stays in the namespace that it was made in.
"""

from __future__ import annotations

import os

from sysvisor_runc.errors import LaunchError
from sysvisor_runc.kernel.namespaces import CLONE_NEWNET, setns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyroute2 import IPRoute

_FIELD = "linux.netDevices"
_RT_SCOPE_UNIVERSE = 0
_IFA_F_PERMANENT = 0x80


class _Address:
    """A global address as RTM_NEWADDR takes it: `fields` are those of struct ifaddrmsg and IFA_* attributes."""

    __slots__ = ("fields",)

    def __init__(self, fields: dict[str, object]) -> None:
        self.fields = fields


def move_devices(devices: dict[str, str], pid: int) -> Callable[[], None]:
    """Move each device (host name to name inside) into the network namespace of process `pid`, and set it up there.

    Global addresses, MTU and hardware address stay with it (runtime-spec config-linux.md "Network Devices"). Returns a
    function that takes the devices back, for a launch that fails later; where this fails it has done so itself.

    Raises:
        LaunchError: a device is not there, its name is taken inside, or pyroute2 is missing.
    """
    inside = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    moved: dict[str, str] = {}
    try:
        for name, name_inside in devices.items():
            _move(name, name_inside, inside, moved)
    except BaseException:
        _take_back(moved, inside)
        raise
    return lambda: _take_back(moved, inside)


def _move(name: str, name_inside: str, inside: int, moved: dict[str, str]) -> None:
    what = f"{_FIELD}: move {name!r} into the container"
    if name_inside != name:
        what += f" as {name_inside!r}"
    with _open(what) as host, _open(what, inside) as there:
        index = _index(host, name, what)
        addresses = _addresses(host, index)
        if there.link_lookup(ifname=name_inside):
            raise LaunchError(f"{what}: the name is taken there: file exists")
        with _told(what):
            host.link("set", index=index, state="down")
            # One message: should it be refused, the device stays here under its name.
            host.link("set", index=index, net_ns_fd=inside, ifname=name_inside)
        moved[name] = name_inside
        with _told(what):
            _set_up(there, name_inside, addresses, what)


def _set_up(namespace: IPRoute, name: str, addresses: list[_Address], what: str) -> None:
    index = _index(namespace, name, what)
    for address in addresses:
        namespace.addr("add", index=index, **address.fields)
    namespace.link("set", index=index, state="up")


def _take_back(moved: dict[str, str], inside: int) -> None:
    """Best effort, in reverse: with the container's namespace goes every device that is not of hardware."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for name, name_inside in reversed(moved.items()):
            what = f"{_FIELD}: take {name!r} back"
            with _open(what, inside) as there, _open(what) as host, _told(what):
                index = _index(there, name_inside, what)
                addresses = _addresses(there, index)
                there.link("set", index=index, state="down")
                there.link("set", index=index, net_ns_fd=own, ifname=name)
                _set_up(host, name, addresses, what)
    finally:
        os.close(own)
        os.close(inside)


def _index(namespace: IPRoute, name: str, what: str) -> int:
    found = namespace.link_lookup(ifname=name)
    if not found:
        raise LaunchError(f"{what}: no such network device: {name!r}")
    return int(found[0])


def _addresses(namespace: IPRoute, index: int) -> list[_Address]:
    """What belongs to the device wherever it is: no link-local nor host addresses, nor those learnt from a router."""
    found = []
    for message in namespace.get_addr(index=index):
        if message["scope"] != _RT_SCOPE_UNIVERSE or not message["flags"] & _IFA_F_PERMANENT:
            continue
        fields: dict[str, object] = {"family": message["family"], "prefixlen": message["prefixlen"]}
        for key in ("address", "local", "broadcast"):
            value = message.get_attr(f"IFA_{key.upper()}")
            if value:
                fields[key] = value
        found.append(_Address(fields))
    return found


class _told:
    """Turns pyroute2's errors into ours, with `what` was being done."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        from pyroute2 import NetlinkError

        if isinstance(error, NetlinkError):
            text = os.strerror(error.code)
            raise LaunchError(f"{self._what}: {text[:1].lower()}{text[1:]}") from error


def _open(what: str, namespace: int = -1) -> IPRoute:
    """A netlink socket of our own network namespace, or of the one behind a descriptor."""
    from sysvisor_runc.aio.libraries import make_importable

    make_importable()
    try:
        from pyroute2 import IPRoute
    except ImportError as error:
        hint = "apt-get install python3-pyroute2, or `make deps` in the source tree"
        raise LaunchError(f"{what}: the library pyroute2 cannot be imported: {error}", hint=hint) from error
    if namespace < 0:
        return IPRoute()
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(namespace, CLONE_NEWNET)
        try:
            return IPRoute()
        finally:
            setns(own, CLONE_NEWNET)
    finally:
        os.close(own)

"""/dev of a system container: real device nodes that belong to its root."""

import os
import pathlib
from collections.abc import Callable

import pytest

from tests.support.bundle import Bundle
from tests.support.runtime import Runtime

_NODES = (
    "for f in /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty; do stat -c '%n %t:%T %a %u:%g' $f; done"
)


def test_nodes_belong_to_root(runtime: Runtime, new_bundle: Callable[..., Bundle]) -> None:
    """The default devices are there with their numbers, mode 0666, owned by the container's root, and they work."""
    bundle = new_bundle().sh(f"{_NODES}; echo gone >/dev/null; head -c 3 /dev/zero | wc -c")
    lines = runtime("run", "-b", bundle.path, runtime.id()).stdout.splitlines()
    assert [line.split()[1:] for line in lines[:-1]] == [
        [number, "666", "0:0"] for number in ("1:3", "1:5", "1:7", "1:8", "1:9", "5:0")
    ]
    assert lines[-1] == "3"


def test_given_device(runtime: Runtime, new_bundle: Callable[..., Bundle]) -> None:
    """A device of the spec gets the owner, the mode and the number that it asks for, whatever the umask."""
    bundle = new_bundle()
    bundle.linux["devices"] = [
        {"path": "/dev/deep/er/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o662, "uid": 7, "gid": 8}
    ]
    bundle.sh("stat -c '%a %u:%g' /dev/deep/er/zero /dev/deep/er; head -c 5 /dev/deep/er/zero | wc -c")
    old = os.umask(0o077)
    try:
        assert runtime("run", "-b", bundle.path, runtime.id()).stdout.split() == ["662", "7:8", "755", "0:0", "5"]
    finally:
        os.umask(old)


@pytest.mark.parametrize("device", ["fuse", "net/tun"])
def test_devices_of_a_machine(runtime: Runtime, new_bundle: Callable[..., Bundle], device: str) -> None:
    """FUSE and TUN can be opened by an ordinary user inside, whatever the mode of the host's node."""
    if not pathlib.Path("/dev", device).exists():
        pytest.skip(f"the host has no /dev/{device}; to force it: modprobe {device.rpartition('/')[2]}")
    bundle = new_bundle()
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.sh(f"exec 3<>/dev/{device} && echo opened")
    assert runtime("run", "-b", bundle.path, runtime.id()).stdout == "opened\n"


def test_no_new_devices(runtime: Runtime, new_bundle: Callable[..., Bundle]) -> None:
    """The root of the container cannot make a node of its own there, nor use one by changing the mount."""
    bundle = new_bundle().sh("mknod /dev/sda b 8 0 || mount -o remount,size=1g /dev || echo refused")
    assert runtime("run", "-b", bundle.path, runtime.id(), check=False).stdout == "refused\n"

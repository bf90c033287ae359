"""Devices: the nodes that every container has, those of the spec, and the cgroup's rules on what may be opened."""

import os
import stat

import pytest

from tests.support.bundle import Bundle
from tests.support.inside import observe, user_namespace
from tests.support.runtime import Runtime

LOCAL = 240  # a major number for local use (Documentation/admin-guide/devices.txt)
DEFAULTS = {"null": "1:3", "zero": "1:5", "full": "1:7", "random": "1:8", "urandom": "1:9", "tty": "5:0"}
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
         "ptmx": "pts/ptmx"}  # fmt: skip


def show(*paths: str) -> str:
    """A shell command that prints type, number (hexadecimal), mode and owner of each path."""
    return "stat -c '%F %t:%T %a %u:%g' " + " ".join(paths)


def device(path: str, kind: str, major: int, minor: int, **fields: int) -> dict[str, object]:
    return {"path": path, "type": kind, "major": major, "minor": minor, **fields}


@pytest.mark.parametrize("userns", [False, True])
def test_default_devices(plain_runtime: Runtime, bundle: Bundle, userns: bool) -> None:
    """They are there, work, and are open to everybody; in a user namespace they are the host's nodes."""
    if userns:
        user_namespace(bundle)
    names = list(DEFAULTS)
    seen = observe(
        plain_runtime,
        bundle,
        nodes=show(*(f"/dev/{name}" for name in names)),
        links="; ".join(f"readlink /dev/{name}" for name in LINKS),
        works="echo x >/dev/null && head -c 4 /dev/zero | wc -c && head -c 2 /dev/urandom | wc -c",
        full="echo x >/dev/full; true",
        tty="test -c /dev/pts/ptmx && echo yes",
    )
    for name, line in zip(names, seen["nodes"].splitlines(), strict=True):
        kind, _, rest = line.partition(" special file ")
        assert (kind, rest.split()[0], rest.split()[1]) == ("character", DEFAULTS[name], "666"), name
    assert seen["links"].split() == list(LINKS.values())
    assert seen["works"].split() == ["4", "2"]
    assert "No space left" in seen["full"]
    assert seen["tty"] == "yes"


def test_devices_of_the_spec(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Of every type, with mode and owner, in directories made for them, and in place of a default one."""
    bundle.linux["devices"] = [
        device("/dev/some/char", "c", 10, 229, fileMode=0o100640, uid=3, gid=4),
        device("/dev/unbuffered", "u", 10, 230, fileMode=0o600),
        device("/dev/block", "b", 7, 0),
        device("/dev/pipe", "p", 0, 0, fileMode=0o622, uid=5, gid=6),
        device("/outside/dev", "c", 1, 3, fileMode=0),
        device("/dev/full", "c", 1, 3, fileMode=0o444),
    ]
    seen = observe(
        plain_runtime,
        bundle,
        nodes=show("/dev/some/char", "/dev/unbuffered", "/dev/block", "/dev/pipe", "/outside/dev", "/dev/full"),
        full="echo x >/dev/full && echo written",
    )
    assert seen["nodes"].splitlines() == [
        "character special file a:e5 640 3:4",
        "character special file a:e6 600 0:0",
        "block special file 7:0 666 0:0",
        "fifo 0:0 622 5:6",
        "character special file 1:3 0 0:0",
        "character special file 1:3 444 0:0",
    ]
    assert seen["full"] == "written"


def test_in_a_user_namespace_they_are_the_hosts(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Nodes cannot be made there: the host's are shown, but fifos can; what the host has not is told."""
    user_namespace(bundle)
    bundle.linux["devices"] = [device("/dev/kmsg", "c", 1, 11), device("/dev/pipe", "p", 0, 0, fileMode=0o666)]
    seen = observe(plain_runtime, bundle, nodes=show("/dev/kmsg", "/dev/pipe"))
    host = os.stat("/dev/kmsg")
    kmsg, pipe = seen["nodes"].splitlines()
    assert kmsg.startswith(f"character special file 1:b {stat.S_IMODE(host.st_mode):o} ")
    assert pipe.startswith("fifo 0:0 666 0:0")
    bundle.linux["devices"] = [device("/dev/not-on-the-host", "c", 1, 3)]
    bundle.save()
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert "/dev/not-on-the-host" in error and "no such file" in error


def test_something_else_in_a_devices_place(plain_runtime: Runtime, bundle: Bundle) -> None:
    """The very device may be there already; anything else is an error, and is not followed if it is a link."""
    (bundle.rootfs / "there").mkdir()
    os.mknod(bundle.rootfs / "there/same", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    bundle.linux["devices"] = [device("/there/same", "c", 1, 3, fileMode=0o666)]
    assert observe(plain_runtime, bundle, same=show("/there/same"))["same"] == "character special file 1:3 666 0:0"
    target = bundle.path / "target"
    for make in (
        lambda path: path.touch(),
        lambda path: path.symlink_to(target),
        lambda path: os.mknod(path, stat.S_IFCHR, os.makedev(1, 5)),
    ):
        path = bundle.rootfs / "there/other"
        make(path)
        bundle.linux["devices"] = [device("/there/other", "c", 1, 3)]
        bundle.save()
        assert "/there/other" in plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
        assert not target.exists()
        path.unlink()


@pytest.mark.parametrize("userns", [False, True])
def test_rules(plain_runtime: Runtime, bundle: Bundle, userns: bool) -> None:
    """Denied but for what the rules allow, access by access; the defaults stay open."""
    if userns:
        user_namespace(bundle)
    # Numbers without a driver: what may be opened has no such device, what may not is refused before that.
    source = bundle.path / "nodes"
    source.mkdir()
    for minor in (1, 2, 3):
        os.mknod(source / str(minor), stat.S_IFCHR, os.makedev(LOCAL, minor))
        os.chmod(source / str(minor), 0o666)
    bundle.config["mounts"].append({"destination": "/mnt", "source": str(source), "options": ["bind"]})
    bundle.linux["resources"] = {
        "devices": [
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "c", "major": LOCAL, "minor": 1, "access": "r"},
            {"allow": True, "type": "c", "major": LOCAL, "minor": 3, "access": "rwm"},
            {"allow": False, "type": "c", "major": LOCAL, "minor": 3, "access": "w"},
        ]
    }
    seen = observe(
        plain_runtime,
        bundle,
        read="true </mnt/1; true",
        write="true >>/mnt/1; true",
        other="true </mnt/2; true",
        left="true </mnt/3; true",
        taken="true >>/mnt/3; true",
        null="echo x >/dev/null && echo ok",
        pts="true <>/dev/ptmx && echo ok",
    )
    for name in ("read", "left"):
        assert "No such device" in seen[name], name
    for name in ("write", "other", "taken"):
        assert "not permitted" in seen[name], name
    assert (seen["null"], seen["pts"]) == ("ok", "ok")


def test_a_rule_for_everything(plain_runtime: Runtime, bundle: Bundle) -> None:
    """`allow` without type opens all; it replaces the rules before it."""
    os.mknod(bundle.rootfs / "node", stat.S_IFCHR | 0o666, os.makedev(LOCAL, 1))
    bundle.linux["resources"] = {
        "devices": [
            {"allow": False, "type": "c", "major": LOCAL, "minor": 1, "access": "rwm"},
            {"allow": True, "access": "rwm"},
        ]
    }
    assert "No such device" in observe(plain_runtime, bundle, read="true </node; true")["read"]

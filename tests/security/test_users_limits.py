"""What a container's processes make counts against its own user, not against the host's root, whom all others share."""

import ctypes
import errno
import os
import pathlib
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support.bundle import Bundle
from tests.support.runtime import Runtime, wait_until
from tests.support.weakened import Weaken

SUBUID, PASSWD = pathlib.Path("/etc/subuid"), pathlib.Path("/etc/passwd")
LIMIT = pathlib.Path("/proc/sys/fs/inotify/max_user_instances")
libc = ctypes.CDLL(None, use_errno=True)


def inotify() -> int:
    """Make an inotify instance and close it: 0, or why not."""
    fd = libc.inotify_init1(os.O_CLOEXEC)
    if fd < 0:
        return ctypes.get_errno()
    os.close(fd)
    return 0


@contextmanager
def hoarding(runtime: Runtime, bundle: Bundle) -> Iterator[int]:
    """A container that holds all the inotify instances it gets: how many these are."""
    name = runtime.id()
    loot = bundle.rootfs / "loot"
    loot.unlink(missing_ok=True)
    runtime("run", "--detach", "--bundle", bundle.path, name)
    try:
        wait_until(lambda: loot.exists() and loot.read_text().endswith("\n"), what="the hoard")
        yield int(loot.read_text().split()[1])
    finally:
        runtime("delete", "--force", name)


@pytest.fixture
def few() -> Iterator[int]:
    """The limit on inotify instances, which is low enough here to be used up."""
    before = LIMIT.read_text()
    LIMIT.write_text("100")
    yield 100
    LIMIT.write_text(before)


def test_one_container_cannot_use_up_the_hosts_inotify_instances(
    runtime: Runtime, hostile: Callable[..., Bundle], few: int
) -> None:
    """While one holds as many as a user may have, the host's root and a second container make theirs."""
    with hoarding(runtime, hostile("/attacker", "hoard")) as first:
        assert first == few
        assert inotify() == 0
        with hoarding(runtime, hostile("/attacker", "hoard")) as second:
            assert second == few


def test_the_attack_works_where_the_hosts_root_owns_the_user_namespace(
    runtime: Runtime, hostile: Callable[..., Bundle], weaken: Weaken, few: int
) -> None:
    """Without the defence the host's root is left with none: the test above can fail."""
    weak = weaken(runtime, "plan/build.py", "plan.owner = facts.own_id", "plan.owner = None")
    with hoarding(weak, hostile("/attacker", "hoard")):
        assert inotify() == errno.EMFILE


NS_GET_OWNER_UID = 0xB704  # ioctl_ns(2)


def owner(pid: int) -> int:
    """Host uid of the owner of this process's user namespace."""
    fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        uid = ctypes.c_uint32()
        assert libc.ioctl(fd, ctypes.c_ulong(NS_GET_OWNER_UID), ctypes.byref(uid)) == 0
        return uid.value
    finally:
        os.close(fd)


@pytest.fixture
def given() -> Iterator[int]:
    """The first of some ids that /etc/subuid gives to somebody."""
    before = SUBUID.read_text() if SUBUID.exists() else None
    SUBUID.write_text(f"{before or ''}remapped:1500000000:65536\n")
    yield 1500000000
    if before is None:
        SUBUID.unlink()
    else:
        SUBUID.write_text(before)


def start_with(runtime: Runtime, bundle: Bundle, first: int | None) -> int:
    """The pid of a container with ids from `first` on; None leaves that to the runtime."""
    if first is not None:
        mapping = [{"containerID": 0, "hostID": first, "size": 65536}]
        bundle.linux.update(uidMappings=mapping, gidMappings=mapping)
        if not any(entry["type"] == "user" for entry in bundle.linux["namespaces"]):
            bundle.linux["namespaces"].append({"type": "user"})
    name = runtime.id()
    runtime("run", "--detach", "--bundle", bundle.run("/bin/sleep", "100").path, name)
    pid: int = runtime.state(name)["pid"]
    assert first in (None, os.stat(f"/proc/{pid}").st_uid)
    return pid


@pytest.mark.parametrize("kind", ["runtime", "plain_runtime"])
def test_subordinate_ids_own(request: pytest.FixtureRequest, bundle: Bundle, given: int, kind: str) -> None:
    """What an engine gives a container out of /etc/subuid, as Docker's userns-remap does, is nobody's outside."""
    assert owner(start_with(request.getfixturevalue(kind), bundle, given)) == given


@pytest.mark.parametrize("kind", ["runtime", "plain_runtime"])
def test_ids_that_others_may_have_own_nothing(
    request: pytest.FixtureRequest, bundle: Bundle, given: int, kind: str
) -> None:
    """Other ids can be a login user's, who must not get an owner's rights: root owns the user namespace."""
    runtime: Runtime = request.getfixturevalue(kind)
    assert owner(start_with(runtime, bundle, given + 65536)) == 0
    users = PASSWD.read_text()
    PASSWD.write_text(f"{users}svt:x:{given}:{given}::/:/bin/sh\n")
    try:
        assert owner(start_with(runtime, bundle, given)) == 0
    finally:
        PASSWD.write_text(users)


def test_allotted_ids_own(runtime: Runtime, bundle: Bundle) -> None:
    """So do those of the runtime's own ranges."""
    pid = start_with(runtime, bundle, None)
    assert owner(pid) == os.stat(f"/proc/{pid}").st_uid != 0


UNPRIVILEGED = pathlib.Path("/proc/sys/kernel/unprivileged_userns_clone")


@pytest.mark.skipif(not UNPRIVILEGED.exists(), reason="not Debian's kernel; to force it: make test-vm")
def test_where_only_root_makes_user_namespaces(runtime: Runtime, bundle: Bundle) -> None:
    """Debian's switch that forbids them to others does not forbid them to a runtime that takes another's id for it."""
    before = UNPRIVILEGED.read_text()
    UNPRIVILEGED.write_text("0")
    try:
        assert runtime("run", "--bundle", bundle.sh("echo made").path, runtime.id()).stdout == "made\n"
    finally:
        UNPRIVILEGED.write_text(before)


# Starts the runtime as containerd's shim does, says its pid, and waits.
CALLER = """
import ctypes, os, signal, sys
pid = os.fork()
if not pid:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    os.execv(sys.argv[1], sys.argv[1:])
print(pid, flush=True)
signal.pause()
"""


def test_the_callers_death_signal_survives(runtime: Runtime, bundle: Bundle, workplace: pathlib.Path) -> None:
    """A runtime that is to die with its caller, as containerd's shim wants it, still is once the container is made."""
    hook = workplace / "hook"
    hook.write_text(f"#!/bin/sh\n: >{workplace}/made\nexec sleep 100\n")
    hook.chmod(0o755)
    bundle.config["hooks"] = {"poststart": [{"path": str(hook)}]}
    bundle.run("/bin/sleep", "100")
    name = runtime.id()
    argv = [sys.executable, "-c", CALLER, *runtime.argv("run", "--bundle", str(bundle.path), name)]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as caller:
        try:
            assert caller.stdout is not None
            pidfd = os.pidfd_open(int(caller.stdout.readline()))
            wait_until((workplace / "made").exists, what="the container")
            assert not gone(pidfd)
        finally:
            caller.kill()
    try:
        wait_until(lambda: gone(pidfd), what="the end of the runtime")
    finally:
        os.close(pidfd)
        runtime("delete", "--force", name)


def gone(pidfd: int) -> bool:
    """Whether this process has ended."""
    return bool(select.select([pidfd], [], [], 0)[0])

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
# prlimit(2) on what is inside, as criu does, takes CAP_SYS_RESOURCE there, which is the owner's.
with open("/proc/self/status") as _file:
    _PERMITTED = next(int(line.split()[1], 16) for line in _file if line.startswith("CapPrm"))
_KNOWN = (1 << int(pathlib.Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1) - 1
needs_all_capabilities = pytest.mark.skipif(
    _PERMITTED & _KNOWN != _KNOWN,
    reason="root lacks capabilities here; to force it: tests/kernel/test_uml.py, or make test-vm",
)
libc = ctypes.CDLL(None, use_errno=True)


def inotify() -> int:
    """Make an inotify instance and close it: 0, or why not."""
    fd = libc.inotify_init1(os.O_CLOEXEC)
    if fd < 0:
        return ctypes.get_errno()
    os.close(fd)
    return 0


@pytest.fixture
def given() -> Iterator[int]:
    """The first of some ids that /etc/subuid gives to somebody."""
    before = SUBUID.read_text() if SUBUID.exists() else None
    SUBUID.write_text(f"{before or ''}remapped:1500000000:131072\n")
    yield 1500000000
    if before is None:
        SUBUID.unlink()
    else:
        SUBUID.write_text(before)


def identify(bundle: Bundle, first: int) -> None:
    """Give a container the host's ids from `first` on."""
    mapping = [{"containerID": 0, "hostID": first, "size": 65536}]
    bundle.linux.update(uidMappings=mapping, gidMappings=mapping)
    if not any(entry["type"] == "user" for entry in bundle.linux["namespaces"]):
        bundle.linux["namespaces"].append({"type": "user"})
    bundle.save()


def start_with(runtime: Runtime, bundle: Bundle, first: int | None) -> str:
    """The id of a new container whose ids on the host start with `first`; None leaves that to the runtime."""
    if first is not None:
        identify(bundle, first)
    name = runtime.id()
    runtime("run", "--detach", "--bundle", bundle.path, name)
    assert first in (None, os.stat(f"/proc/{runtime.state(name)['pid']}").st_uid)
    return name


@contextmanager
def hoarding(runtime: Runtime, bundle: Bundle, first: int) -> Iterator[int]:
    """A container with ids from `first` on that holds all the inotify instances it gets: how many these are."""
    bundle.rootfs.chmod(0o777)
    loot = bundle.rootfs / "loot"
    name = start_with(runtime, bundle, first)
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


@needs_all_capabilities
def test_one_container_cannot_use_up_the_hosts_inotify_instances(
    plain_runtime: Runtime, hostile: Callable[..., Bundle], given: int, few: int
) -> None:
    """While one holds as many as a user may have, the host's root and a container of other ids make theirs."""
    with hoarding(plain_runtime, hostile("/attacker", "hoard"), given) as first:
        assert first == few
        assert inotify() == 0
        with hoarding(plain_runtime, hostile("/attacker", "hoard"), given + 65536) as second:
            assert second == few


@needs_all_capabilities
def test_the_attack_works_where_the_hosts_root_owns_the_user_namespace(
    plain_runtime: Runtime, hostile: Callable[..., Bundle], weaken: Weaken, given: int, few: int
) -> None:
    """Without the defence the host's root is left with none: the test above can fail."""
    weak = weaken(plain_runtime, "plan/build.py", "plan.owner = facts.own_id", "plan.owner = None")
    with hoarding(weak, hostile("/attacker", "hoard"), given):
        assert inotify() == errno.EMFILE


NS_GET_OWNER_UID = 0xB704  # ioctl_ns(2)


def owner(runtime: Runtime, name: str) -> int:
    """Host uid of the owner of this container's user namespace."""
    fd = os.open(f"/proc/{runtime.state(name)['pid']}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        uid = ctypes.c_uint32()
        assert libc.ioctl(fd, ctypes.c_ulong(NS_GET_OWNER_UID), ctypes.byref(uid)) == 0
        return uid.value
    finally:
        os.close(fd)


@needs_all_capabilities
@pytest.mark.parametrize("kind", ["runtime", "plain_runtime"])
def test_subordinate_ids_own(request: pytest.FixtureRequest, bundle: Bundle, given: int, kind: str) -> None:
    """What an engine gives a container out of /etc/subuid, as Docker's userns-remap does, is nobody's outside."""
    runtime: Runtime = request.getfixturevalue(kind)
    assert owner(runtime, start_with(runtime, bundle.run("/bin/sleep", "100"), given)) == given


@pytest.mark.parametrize("kind", ["runtime", "plain_runtime"])
def test_ids_that_others_may_have_own_nothing(
    request: pytest.FixtureRequest, bundle: Bundle, given: int, kind: str
) -> None:
    """Other ids can be a login user's, who must not get an owner's rights: root owns the user namespace."""
    runtime: Runtime = request.getfixturevalue(kind)
    bundle.run("/bin/sleep", "100")
    assert owner(runtime, start_with(runtime, bundle, given + 131072)) == 0
    users = PASSWD.read_text()
    PASSWD.write_text(f"{users}svt:x:{given}:{given}::/:/bin/sh\n")
    try:
        assert owner(runtime, start_with(runtime, bundle, given)) == 0
    finally:
        PASSWD.write_text(users)


@needs_all_capabilities
def test_allotted_ids_own(runtime: Runtime, bundle: Bundle) -> None:
    """So do those of the runtime's own ranges."""
    name = start_with(runtime, bundle.run("/bin/sleep", "100"), None)
    assert owner(runtime, name) == os.stat(f"/proc/{runtime.state(name)['pid']}").st_uid != 0


def test_a_root_without_all_capabilities_stays_owner(plain_runtime: Runtime, bundle: Bundle, given: int) -> None:
    """What he lacks on the host he has in the container for being its owner: criu needs it."""
    lacking = ["setpriv", "--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource"]
    shell = plain_runtime.directory / "lacking"
    shell.write_text(f'#!/bin/sh\nexec {" ".join(lacking)} {plain_runtime.program} "$@"\n')
    shell.chmod(0o755)
    plain_runtime.program = shell
    assert owner(plain_runtime, start_with(plain_runtime, bundle.run("/bin/sleep", "100"), given)) == 0


UNPRIVILEGED = pathlib.Path("/proc/sys/kernel/unprivileged_userns_clone")


@pytest.mark.skipif(
    not UNPRIVILEGED.exists(), reason="not Debian's kernel; to force it: tests/kernel/test_uml.py, or make test-vm"
)
def test_where_only_root_makes_user_namespaces(plain_runtime: Runtime, bundle: Bundle, given: int) -> None:
    """Debian's switch that forbids them to others does not forbid them to a runtime that takes another's id for it."""
    before = UNPRIVILEGED.read_text()
    UNPRIVILEGED.write_text("0")
    try:
        identify(bundle.sh("echo made"), given)
        assert plain_runtime("run", "--bundle", bundle.path, plain_runtime.id()).stdout == "made\n"
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


@needs_all_capabilities
def test_the_callers_death_signal_survives(
    plain_runtime: Runtime, bundle: Bundle, workplace: pathlib.Path, given: int
) -> None:
    """A runtime that is to die with its caller, as containerd's shim wants it, still is once the container is made."""
    hook = workplace / "hook"
    hook.write_text(f"#!/bin/sh\n: >{workplace}/made\nexec sleep 100\n")
    hook.chmod(0o755)
    bundle.config["hooks"] = {"poststart": [{"path": str(hook)}]}
    identify(bundle.run("/bin/sleep", "100"), given)
    name = plain_runtime.id()
    argv = [sys.executable, "-c", CALLER, *plain_runtime.argv("run", "--bundle", str(bundle.path), name)]
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
        plain_runtime("delete", "--force", name)


def gone(pidfd: int) -> bool:
    """Whether this process has ended."""
    return bool(select.select([pidfd], [], [], 0)[0])

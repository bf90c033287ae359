"""apparmorProfile: the profile that a container's processes run under, and what is told where there is none.

With AppArmor enabled, as in the guests of tests/kernel/test_uml.py, a profile is loaded that only watches.
"""

import pathlib
import struct
from collections.abc import Iterator

import pytest

from tests.support.bundle import Bundle
from tests.support.inside import start, user_namespace
from tests.support.runtime import Runtime

ENABLED = pathlib.Path("/sys/module/apparmor/parameters/enabled")
POLICY = pathlib.Path("/sys/kernel/security/apparmor")
NAME = "sysvisor-test"
# security/apparmor/policy_unpack.c: type bytes of the binary policy.
_U32, _NAME, _STRING, _STRUCT, _END = 2, 4, 5, 7, 8
_ABI = 5
_COMPLAIN = 1

needs_apparmor = pytest.mark.skipif(
    not ENABLED.exists() or ENABLED.read_text().strip() != "Y" or not POLICY.exists(),
    reason="no AppArmor here; to force it: make test-vm, or boot with security=apparmor",
)


def text(kind: int, value: str) -> bytes:
    data = value.encode() + b"\0"
    return struct.pack("<BH", kind, len(data)) + data


def number(value: int, name: str = "") -> bytes:
    return (text(_NAME, name) if name else b"") + struct.pack("<BI", _U32, value)


def policy(name: str) -> bytes:
    """A profile without rules in complain mode, as apparmor_parser(8) would hand it to the kernel."""
    flags = text(_NAME, "flags") + bytes([_STRUCT]) + number(0) + number(_COMPLAIN) + number(0) + bytes([_END])
    capabilities = b"".join(number(0) for _ in range(4))
    profile = text(_NAME, "profile") + bytes([_STRUCT]) + text(_STRING, name) + flags + capabilities + bytes([_END])
    return number(_ABI, "version") + profile


@pytest.fixture
def profile() -> Iterator[str]:
    """A loaded profile."""
    (POLICY / ".load").write_bytes(policy(NAME))
    yield NAME
    (POLICY / ".remove").write_bytes(NAME.encode() + b"\0")


def current(pid: int) -> str:
    return pathlib.Path(f"/proc/{pid}/attr/apparmor/current").read_text().strip()


@needs_apparmor
@pytest.mark.parametrize("userns", [False, True])
def test_init_and_joining_processes_are_confined(
    plain_runtime: Runtime, bundle: Bundle, profile: str, userns: bool
) -> None:
    """From their execve on, with no_new_privs or without; exec may choose another."""
    if userns:
        user_namespace(bundle)
    bundle.process["apparmorProfile"] = profile
    for no_new_privs in (False, True):
        bundle.process["noNewPrivileges"] = no_new_privs
        name, pid = start(plain_runtime, bundle)
        assert current(pid) == f"{profile} (complain)"
        show = ("/bin/cat", "/proc/self/attr/apparmor/current")
        assert plain_runtime("exec", name, *show).stdout.strip() == f"{profile} (complain)"
        assert plain_runtime("exec", "--apparmor", "unconfined", name, *show).stdout.strip() == "unconfined"


@needs_apparmor
def test_a_profile_that_is_not_loaded(plain_runtime: Runtime, bundle: Bundle) -> None:
    """The container is not created."""
    bundle.process["apparmorProfile"] = "never-heard-of"
    bundle.save()
    name = plain_runtime.id()
    error = plain_runtime.fails("create", "--bundle", bundle.path, name).stderr
    assert "apply apparmor profile 'never-heard-of'" in error and "no such file" in error
    assert name not in plain_runtime.ids()


@pytest.mark.skipif(ENABLED.exists(), reason="AppArmor is there; to force it: boot without")
def test_without_apparmor(plain_runtime: Runtime, bundle: Bundle) -> None:
    """A profile cannot be applied where nothing would heed it: told when the container is created, and for exec."""
    name, _ = start(plain_runtime, bundle)
    error = plain_runtime.fails("exec", "--apparmor", "some-profile", name, "/bin/true").stderr
    assert "apply apparmor profile 'some-profile'" in error
    bundle.process["apparmorProfile"] = "some-profile"
    bundle.save()
    error = plain_runtime.fails("create", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert "apply apparmor profile 'some-profile' (enabled and loaded?)" in error


@pytest.mark.skipif(
    pathlib.Path("/sys/fs/selinux/enforce").exists(), reason="SELinux is there; to force it: boot without"
)
def test_without_selinux(plain_runtime: Runtime, bundle: Bundle) -> None:
    """A label is refused before anything is made."""
    bundle.process["selinuxLabel"] = "system_u:system_r:container_t:s0"
    bundle.save()
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert "process.selinuxLabel" in error and "selinux is disabled or not supported" in error

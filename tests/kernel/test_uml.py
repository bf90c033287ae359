"""Containers on a kernel and cgroup layout that this machine does not have: integration tests inside UML."""

from collections.abc import Callable

import pytest

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(420)]

Said = Callable[[], str]
guest = pytest.mark.guest
NOT_BOOTED = "systemd is not pid 1 here"
# What services ordinarily depend on, before the tests: it empties /tmp.
SERVICES = "systemctl start basic.target systemd-journald.service"
FUSE = "busybox insmod /usr/lib/uml/modules/$(uname -r)/kernel/fs/fuse/fuse.ko"


def under_systemd(version: str, name: str, select: str = "", prepare: str = SERVICES) -> pytest.MarkDecorator:
    """A guest whose pid 1 is systemd, for one file of integration tests."""
    return guest(version, f"integration/test_{name}.py", select=select, prepare=prepare, systemd=True)


@guest("v2", "integration/test_cgroup_run.py", "integration/test_devices.py")
def test_limits_on_cgroup_v2(said: Said) -> None:
    """Pure cgroup v2 with controllers: limits, device rules by eBPF, the cgroup mount, init out of memory."""
    assert " passed" in said()


@guest("v2", "security/test_users_limits.py", select="not [runtime] and not allotted")
def test_whose_limits(said: Said) -> None:
    """A root with all capabilities: what is made in a container counts against its own root."""
    assert "lacks capabilities" not in said()


@guest(
    "v1",
    "integration/test_apparmor.py",
    prepare="mount -t securityfs securityfs /sys/kernel/security",
    boot=("lsm=apparmor",),
)
def test_apparmor(said: Said) -> None:
    """A kernel with AppArmor: containers and joining processes run under their profile."""
    assert "no AppArmor here" not in said()


@pytest.mark.parametrize(
    "version",
    [pytest.param(version, marks=under_systemd(version, "systemd_driver", prepare="")) for version in ("v2", "hybrid")],
)
def test_systemd_driver(version: str, said: Said) -> None:
    """--systemd-cgroup on a machine whose pid 1 is systemd, with pure v2 and with v1 beside an empty v2."""
    assert NOT_BOOTED not in said(), version


FALLS = "first_container or killed or hangs"


@pytest.mark.parametrize(
    "part",
    [
        pytest.param("falls", marks=under_systemd("v2", "supervisor_service", FALLS)),
        pytest.param("comes-and-goes", marks=under_systemd("v2", "supervisor_service", f"not ({FALLS})")),
    ],
)
def test_supervisor_service(part: str, said: Said) -> None:
    """The supervisor as a service: started by its socket, killed, hanging; stopped, taking over, and the clock set."""
    assert " skipped" not in said(), part


@under_systemd("v2", "systemd_user")
def test_systemd_user(said: Said) -> None:
    """An ordinary user's containers in scopes and delegated cgroups of `systemd --user`."""
    assert " skipped" not in said()


@under_systemd("v2", "fs_service", prepare=f"{FUSE}\n{SERVICES}")
def test_fs_service(said: Said) -> None:
    """sysvisor-fs as a service, on a kernel whose FUSE is a module."""
    assert " skipped" not in said()


COMMON = "says_when or background or crash or stopping"


@pytest.mark.parametrize(
    "part",
    [
        pytest.param("v2", marks=under_systemd("v2", "services", COMMON)),
        pytest.param("v2-more", marks=under_systemd("v2", "services", f"not ({COMMON})")),
        pytest.param("hybrid", marks=under_systemd("hybrid", "services", "says_when or background")),
    ],
)
def test_services(part: str, said: Said) -> None:
    """The units of contrib/systemd under a real systemd, with pure v2 and, where cgroups matter, beside v1."""
    assert NOT_BOOTED not in said(), part

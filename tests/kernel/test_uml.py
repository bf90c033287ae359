"""Containers on a kernel and cgroup layout that this machine does not have: integration tests inside UML."""

import pathlib
import sys
import sysconfig

import pytest

from tests.support import uml

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = pathlib.Path(__file__).parents[2]


def run(
    directory: pathlib.Path,
    version: str,
    *files: str,
    prepare: str = "",
    boot: tuple[str, ...] = (),
    systemd: bool = False,
    select: str = "",
) -> str:
    """Run test files, or what `select` (-k) picks of them, in a guest; its output, which must tell of passed ones."""
    # The interpreter that runs this, with its packages: a virtual environment is a file of the host like any other.
    python = f"env PYTHONPATH={sysconfig.get_paths()['purelib']} {sys.executable}"
    tests = " ".join(f"tests/integration/test_{name}.py" for name in files)
    options = "-q -rs -p no:cacheprovider -o addopts=--import-mode=importlib"
    chosen = f"-k '{select}'" if select else ""
    script = f"{prepare}\ncd {ROOT}\n{python} -m pytest {options} {chosen} {tests}\n"
    text = uml.run(directory, version, script, *boot, timeout=280, systemd=systemd)
    assert " passed" in text
    return text


def test_limits_on_cgroup_v2(tmp_path: pathlib.Path) -> None:
    """Pure cgroup v2 with controllers: limits, device rules by eBPF, the cgroup mount, init out of memory."""
    run(tmp_path, "v2", "cgroup_run", "devices")


def test_apparmor(tmp_path: pathlib.Path) -> None:
    """A kernel with AppArmor: containers and joining processes run under their profile."""
    mount = "mount -t securityfs securityfs /sys/kernel/security"
    text = run(tmp_path, "v1", "apparmor", prepare=mount, boot=("lsm=apparmor",))
    assert "no AppArmor here" not in text


@pytest.mark.parametrize("version", ["v2", "hybrid"])
def test_systemd_driver(version: str, tmp_path: pathlib.Path) -> None:
    """--systemd-cgroup on a machine whose pid 1 is systemd, with pure v2 and with v1 beside an empty v2."""
    text = run(tmp_path, version, "systemd_driver", systemd=True)
    assert "systemd is not pid 1 here" not in text


@pytest.mark.parametrize(
    "select",
    ["first_container or killed or hangs", "not first_container and not killed and not hangs"],
    ids=["falls", "comes-and-goes"],
)
def test_supervisor_service(select: str, tmp_path: pathlib.Path) -> None:
    """The supervisor as a service: started by its socket, killed, hanging; stopped, taking over, and the clock set."""
    boot = "systemctl start basic.target systemd-journald.service"
    text = run(tmp_path, "v2", "supervisor_service", prepare=boot, systemd=True, select=select)
    assert " skipped" not in text


def test_systemd_user(tmp_path: pathlib.Path) -> None:
    """An ordinary user's containers in scopes and delegated cgroups of `systemd --user`."""
    boot = "systemctl start basic.target systemd-journald.service"
    text = run(tmp_path, "v2", "systemd_user", prepare=boot, systemd=True)
    assert " skipped" not in text


def test_fs_service(tmp_path: pathlib.Path) -> None:
    """sysvisor-fs as a service, on a kernel whose FUSE is a module."""
    boot = "systemctl start basic.target systemd-journald.service"
    fuse = "busybox insmod /usr/lib/uml/modules/$(uname -r)/kernel/fs/fuse/fuse.ko"
    text = run(tmp_path, "v2", "fs_service", prepare=f"{fuse}\n{boot}", systemd=True)
    assert " skipped" not in text


@pytest.mark.parametrize(
    ("version", "select"),
    [
        ("v2", "says_when or background or crash or stopping"),
        ("v2", "not says_when and not background and not crash and not stopping"),
        ("hybrid", "says_when or background"),
    ],
    ids=["v2", "v2-more", "hybrid"],
)
def test_services(version: str, select: str, tmp_path: pathlib.Path) -> None:
    """The units of contrib/systemd under a real systemd, with pure v2 and, where cgroups matter, beside v1."""
    # What services ordinarily depend on, before the tests: it empties /tmp.
    boot = "systemctl start basic.target systemd-journald.service"
    text = run(tmp_path, version, "services", prepare=boot, systemd=True, select=select)
    assert "systemd is not pid 1 here" not in text

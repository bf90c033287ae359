"""`make BUILDTAGS=…`: what is left out is refused or ignored with a word, and reported by --version and features."""

import pathlib
import shutil
import subprocess

import pytest

from tests.support.bundle import Bundle
from tests.support.runtime import SOURCE, Runtime

SECCOMP = {"defaultAction": "SCMP_ACT_ALLOW"}


@pytest.fixture
def bare(workplace: pathlib.Path) -> Runtime:
    """A copy of the program that was built with nothing."""
    shutil.copytree(SOURCE / "sysvisor_runc", workplace / "sysvisor_runc", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(SOURCE / "bin", workplace / "bin")
    build = workplace / "sysvisor_runc/_build.py"
    subprocess.run(
        ["/usr/bin/python3", SOURCE / "tools/buildinfo.py", "--tags", "", build], check=True, stdout=subprocess.DEVNULL
    )
    return Runtime(workplace, "--no-syscont", program=workplace / "bin/sysvisor-runc")


def test_left_out_features_are_refused(bare: Runtime, bundle: Bundle) -> None:
    """A container that asks for seccomp or a label is not quietly run without."""
    for path, where, value in (
        ("linux.seccomp", bundle.linux, ("seccomp", SECCOMP)),
        ("process.apparmorProfile", bundle.process, ("apparmorProfile", "unconfined")),
    ):
        where[value[0]] = value[1]
        bundle.save()
        result = bare.fails("run", "--bundle", bundle.path, bare.id())
        assert f"{path}: support for" in result.stderr
        assert "BUILDTAGS" in result.stderr
        del where[value[0]]
    bundle.save()
    bare("run", "--bundle", bundle.path, bare.id())


def test_left_out_features_are_not_reported(bare: Runtime) -> None:
    """--version and features say what is there."""
    assert "seccomp" not in bare("--version").stdout
    linux = bare("features").json["linux"]
    assert not linux["seccomp"]["enabled"]
    assert not linux["apparmor"]["enabled"]


def test_ambient_capabilities_are_left_out(bare: Runtime, bundle: Bundle) -> None:
    """Without `ambient` the process starts with none, and a warning says so."""
    names = ["CAP_KILL"]
    bundle.process["capabilities"] = dict.fromkeys(
        ("bounding", "effective", "permitted", "inheritable", "ambient"), names
    )
    result = bare("run", "--bundle", bundle.sh("grep CapAmb /proc/self/status").path, bare.id())
    assert int(result.stdout.split()[1], 16) == 0
    assert "ambient" in result.stderr

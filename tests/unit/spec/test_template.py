"""What `spec` writes: valid, runc's example where asked for, and otherwise a machine."""

import os
import shutil
import subprocess

import pytest

from sysvisor_runc import jsonlight
from sysvisor_runc.spec.schema import CAPABILITIES
from sysvisor_runc.spec.template import default_spec
from sysvisor_runc.spec.validate import validate


def kinds(spec: object) -> list[str]:
    checked = validate(spec)
    return [namespace["type"] for namespace in checked["linux"]["namespaces"]]


@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize(("conforming", "rootless"), [(False, False), (True, False), (False, True)])
def test_valid_and_complete(conforming: bool, rootless: bool, unified: bool) -> None:
    """Every variant passes our own check without a warning and without anything to fill in."""
    spec = default_spec(conforming=conforming, rootless=rootless, unified=unified)
    warnings: list[str] = []
    assert validate(spec, warnings, rootless=rootless) is spec
    assert warnings == []


def test_system_container() -> None:
    """Without a flag it describes a machine: writable, with its own cgroups, all capabilities and working sudo."""
    spec = default_spec()
    assert spec["hostname"] == "syscont"
    assert not spec["root"].get("readonly")
    assert kinds(spec) == ["pid", "network", "ipc", "uts", "mount", "cgroup"]
    assert list(map(sorted, spec["process"]["capabilities"].values())) == [sorted(CAPABILITIES)] * 5  # type: ignore[arg-type]  # lists of names
    assert "ro" not in next(m for m in spec["mounts"] if m["destination"] == "/sys/fs/cgroup")["options"]
    assert not spec["process"].get("noNewPrivileges")
    assert "uidMappings" not in spec["linux"]


@pytest.mark.parametrize("conforming", [True, False])
def test_id_map(conforming: bool) -> None:
    """An id map adds the user namespace and nothing else."""
    spec = default_spec(conforming=conforming, id_map=(100000, 200000, 65536), unified=False)
    plain = default_spec(conforming=conforming, unified=False)
    assert kinds(spec) == [*kinds(plain), "user"]
    assert spec["linux"].pop("uidMappings") == [{"containerID": 0, "hostID": 100000, "size": 65536}]
    assert spec["linux"].pop("gidMappings") == [{"containerID": 0, "hostID": 200000, "size": 65536}]
    spec["linux"]["namespaces"].pop()
    assert spec == plain


def test_conforming_cgroup_namespace_only_on_v2() -> None:
    """As in runc, the example has a cgroup namespace where cgroup v2 stands alone."""
    assert "cgroup" in kinds(default_spec(conforming=True, unified=True))
    assert "cgroup" not in kinds(default_spec(conforming=True, unified=False))


def test_rootless() -> None:
    """The rootless variant keeps the host's network and maps the caller to root."""
    spec = default_spec(rootless=True, unified=False)
    assert kinds(spec) == ["pid", "ipc", "uts", "mount", "user"]
    assert spec["linux"]["uidMappings"] == [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
    assert "resources" not in spec["linux"]
    assert not any(option.startswith("gid=") for mount in spec["mounts"] for option in mount.get("options", []))


@pytest.mark.parametrize("flags", [[], ["--rootless"]], ids=["plain", "rootless"])
def test_same_text_as_runc(flags: list[str], tmp_path: object) -> None:
    """The file is runc's line for line, but for the version and what changed in the example since an old runc."""
    runc = shutil.which("runc")
    if runc is None:
        pytest.skip("no runc to compare with; to force it: apt-get install runc")
    subprocess.run([runc, "spec", *flags, "--bundle", str(tmp_path)], check=True)
    with open(f"{tmp_path}/config.json") as file:
        theirs = file.read()
    spec = default_spec(conforming=not flags, rootless=bool(flags))
    old = jsonlight.loads(theirs)
    assert isinstance(old, dict)
    spec["ociVersion"] = old["ociVersion"]
    # Ambient capabilities and two masked paths came and went between 1.1 and 1.4.
    if "ambient" in old["process"]["capabilities"]:
        spec["process"]["capabilities"]["ambient"] = old["process"]["capabilities"]["ambient"]
    spec["linux"]["maskedPaths"] = old["linux"]["maskedPaths"]
    assert jsonlight.dumps(spec, "\t") == theirs

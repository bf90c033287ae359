"""`features` and `--version`: what is claimed is what was built."""

import json
import pathlib
import re
import sys
import types
from typing import Any

import jsonschema
import pytest

from sysvisor_runc import version
from sysvisor_runc.cli.main import run
from sysvisor_runc.plan import features, seccomp_compile

SCHEMA = pathlib.Path(__file__).resolve().parents[2] / "data/oci-schema"


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Any:
    assert run(["features"]) == 0
    return json.loads(capsys.readouterr().out)


def build(monkeypatch: pytest.MonkeyPatch, tags: str, commit: str) -> None:
    """As if `make install` had written these into the library."""
    module = types.ModuleType("sysvisor_runc._build")
    module.__dict__.update(BUILDTAGS=tags, COMMIT=commit)
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_the_answer_names_everything(answer: Any) -> None:
    """Versions, hooks, mount options and namespaces of the runtime specification are all there."""
    assert (answer["ociVersionMin"], answer["ociVersionMax"]) == ("1.0.0", version.SPEC_VERSION)
    assert {"prestart", "createRuntime", "poststop"} <= set(answer["hooks"])
    assert {"rro", "tmpcopyup", "idmap", "ridmap", "nosymfollow"} <= set(answer["mountOptions"])
    assert {"user", "time", "cgroup"} <= set(answer["linux"]["namespaces"])
    assert answer["linux"]["capabilities"][0] == "CAP_CHOWN"
    assert answer["linux"]["mountExtensions"] == {"idmap": {"enabled": True}}
    assert answer["annotations"]["org.opencontainers.runc.checkpoint.enabled"] == "false"


def test_the_answer_fits_the_schema(answer: Any) -> None:
    """The runtime specification's own schema accepts it."""
    store = {path.as_uri(): json.loads(path.read_text()) for path in SCHEMA.glob("*.json")}
    root = (SCHEMA / "features-schema.json").as_uri()
    with pytest.warns(DeprecationWarning, match="RefResolver"):
        resolver = jsonschema.RefResolver(root, store[root], store)
    jsonschema.Draft4Validator(store[root], resolver=resolver).validate(answer)


def test_flags_are_those_of_the_kernel(answer: Any) -> None:
    """What the kernel does not take is known but not supported."""
    seccomp = answer["linux"]["seccomp"]
    assert seccomp["enabled"]
    assert set(seccomp["supportedFlags"]) <= set(seccomp["knownFlags"]) == set(seccomp_compile.FLAGS)


def test_annotations_that_reach_out_are_named(answer: Any) -> None:
    """Whoever lets users set annotations learns which ones are dangerous."""
    assert set(answer["potentiallyUnsafeConfigAnnotations"]) == set(features.UNSAFE_ANNOTATIONS)


def test_build_tags_decide(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A build without seccomp and the security modules says so, in features and version alike."""
    build(monkeypatch, "ambient", "abc123")
    assert run(["features"]) == 0
    linux = json.loads(capsys.readouterr().out)["linux"]
    assert [linux[name]["enabled"] for name in ("seccomp", "apparmor", "selinux")] == [False, False, False]
    assert run(["--version"]) == 0
    out = capsys.readouterr().out
    assert "\ncommit: abc123\n" in out
    assert "libseccomp" not in out
    assert out.endswith("\nfeatures: ambient\n")


def test_version_has_the_lines_of_runc(capsys: pytest.CaptureFixture[str]) -> None:
    """Three lines that programs look for, then what else was built in."""
    assert run(["-v"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.search(r"runc version \d+\.\d+\.\d+$", lines[0])
    assert lines[1].startswith("commit: ")
    assert re.fullmatch(r"spec: \d+\.\d+\.\d+", lines[2])

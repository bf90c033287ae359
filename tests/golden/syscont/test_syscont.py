"""Bundle and host in, system container out, in words.

Each case is a folder: `config.json`, the facts that differ from an ordinary host in `facts.json`, and `expected.txt`,
what `describe` says or the error. To accept a wanted change: `SYSVISOR_GOLDEN=write pytest tests/golden/syscont`.
"""

import json
import os
import pathlib

import pytest

from sysvisor_runc.errors import SpecError
from sysvisor_runc.kernel import capability
from sysvisor_runc.spec.load import load
from sysvisor_runc.syscont.convert import convert
from sysvisor_runc.syscont.describe import describe
from sysvisor_runc.syscont.facts import HostFacts, PathFacts, kernel_version

HERE = pathlib.Path(__file__).parent
CASES = sorted(path.parent for path in HERE.glob("*/config.json"))


def read_facts(case: pathlib.Path) -> HostFacts:
    file = case / "facts.json"
    given = json.loads(file.read_text()) if file.exists() else {}
    for name in ("host_paths", "filesystems", "rootfs_dirs"):
        given[name] = frozenset(given.get(name, ()))
    given["sources"] = {path: PathFacts(**source) for path, source in given.get("sources", {}).items()}
    given["credentials"] = {name: text.encode() for name, text in given.get("credentials", {}).items()}
    return HostFacts(
        given.pop("container_id", "golden"),
        "/bundles/golden/rootfs",
        PathFacts(**given.pop("rootfs", {"magic": 0xEF53})),
        kernel=kernel_version(given.pop("release", "6.1.0-13-amd64")),
        capabilities=given.pop("capabilities", (1 << 41) - 1),
        cap_names=capability.NAMES,
        id_range=tuple(given.pop("id_range", (231072, 231072, 65536))),
        **given,
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden(case: pathlib.Path) -> None:
    """The system container is the one that was agreed on, line by line."""
    try:
        lines = describe(*convert(load(str(case)), read_facts(case)))
    except SpecError as error:
        lines = [f"error: {error}", f"hint: {error.hint}"]
    expected = case / "expected.txt"
    if os.environ.get("SYSVISOR_GOLDEN") == "write":
        expected.write_text("\n".join(lines) + "\n")
    assert lines == expected.read_text().splitlines()


def test_cases_are_found() -> None:
    """The cases that the issue asks for are there."""
    names = {case.name for case in CASES}
    assert names >= {"runc-default", "docker", "systemd", "readonly", "given-mapping", "host-network"}

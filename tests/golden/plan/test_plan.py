"""Spec in, launch plan out, in words: what `--debug run` prints, held line by line.

The cases are those of tests/golden/syscont: each is planned as its spec says (`plain`) and as a system container
(`syscont`), on a v1 and a v2 host. To accept a wanted change: `SYSVISOR_GOLDEN=write pytest tests/golden/plan`.
"""

import importlib.util
import os
import pathlib
import types

import pytest

from sysvisor_runc.cgroup.resources import convert as cgroup_settings
from sysvisor_runc.errors import SpecError
from sysvisor_runc.plan import build
from sysvisor_runc.plan.mounts import CgroupView
from sysvisor_runc.spec.load import load
from sysvisor_runc.syscont.convert import convert

HERE = pathlib.Path(__file__).parent
SYSCONT = HERE.parent / "syscont"
CASES = sorted(path.parent for path in SYSCONT.glob("*/config.json"))
ALL_CAPABILITIES = (1 << 41) - 1

V1 = [
    ("cpu,cpuacct", ("cpu", "cpuacct"), "/sys/fs/cgroup/cpu,cpuacct/g"),
    ("memory", ("memory",), "/sys/fs/cgroup/memory/g"),
]
UNIFIED = "/sys/fs/cgroup/g"


def _syscont_cases() -> types.ModuleType:
    """The module beside us that knows how to read a case's facts."""
    spec = importlib.util.spec_from_file_location("golden_syscont", next(SYSCONT.glob("test_*.py")))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plan_lines(case: pathlib.Path, mode: str, layout: str) -> list[str]:
    """The plan of `case` in words, or its error."""
    try:
        spec = load(str(case), added=("user", "cgroup", "time"))
        traits = None
        if mode == "syscont":
            spec, traits = convert(spec, _syscont_cases().read_facts(case))
        namespaces = spec.get("linux", {}).get("namespaces", [])
        own = any(entry["type"] == "cgroup" for entry in namespaces)
        view = CgroupView(V1 if layout == "v1" else [], "" if layout == "v1" else UNIFIED, namespace=own)
        facts = build.Facts("golden", "/bundles/golden", view, held=ALL_CAPABILITIES, known=ALL_CAPABILITIES)
        facts.traits = traits
        plan = build.build(spec, facts)
        plan.settings = cgroup_settings(spec.get("linux", {}).get("resources", {}), layout)
    except SpecError as error:
        return [f"error: {error}"]
    return plan.describe()


@pytest.mark.parametrize("layout", ["v1", "v2"])
@pytest.mark.parametrize("mode", ["plain", "syscont"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden(case: pathlib.Path, mode: str, layout: str) -> None:
    """The plan is the one that was agreed on: the same steps in the same order."""
    lines = plan_lines(case, mode, layout)
    expected = HERE / case.name / f"{mode}-{layout}.txt"
    if os.environ.get("SYSVISOR_GOLDEN") == "write":
        expected.parent.mkdir(exist_ok=True)
        expected.write_text("\n".join(lines) + "\n")
    assert lines == expected.read_text().splitlines()


def test_plans_differ_by_mode() -> None:
    """A system container is planned with a user namespace and ID-mapped root, a plain one without either."""
    case = SYSCONT / "runc-default"
    plain, syscont = plan_lines(case, "plain", "v2"), plan_lines(case, "syscont", "v2")
    assert not any("id-mapped" in line or "map uid" in line for line in plain)
    assert any("id-mapped to the container" in line for line in syscont)
    assert any("map uid 0 231072 65536" in line for line in syscont)

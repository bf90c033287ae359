"""`sysvisor-runc doctor`: what this host supports, and what to do about the rest."""

from __future__ import annotations

import sys

from sysvisor_runc.cli.engines import ENGINES, NAME
from sysvisor_runc.jsonlight import dumps
from sysvisor_runc.launch.examine import LIMITED, MISSING, OK, Finding, examine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sysvisor_runc.cli.parse import Options

_SIGNS = {OK: "✓", LIMITED: "–", MISSING: "✗"}
_WIDTH = 30


def run(options: Options) -> int:
    """Print the findings; 1 where something is missing that system containers need."""
    findings = [*examine(), *_engines()]
    if options.flag("json"):
        rows = [{"what": f.what, "status": f.status, "found": f.found, "fix": f.fix} for f in findings]
        sys.stdout.write(dumps(rows, indent=4) + "\n")
    else:
        sys.stdout.write("".join(_lines(finding) for finding in findings))
    return int(any(finding.status == MISSING for finding in findings))


def _lines(finding: Finding) -> str:
    text = f"{_SIGNS[finding.status]} {finding.what:{_WIDTH}} {finding.found}\n"
    return text + (f"  {'':{_WIDTH}} → {finding.fix}\n" if finding.fix else "")


def _engines() -> Iterator[Finding]:
    """The container engines of this host, and whether they know of us."""
    from sysvisor_runc.cli.install import read
    from sysvisor_runc.launch.examine import which

    for name, program in (("docker", "dockerd"), ("containerd", "containerd"), ("podman", "podman"), ("crio", "crio")):
        if not which(program):
            continue
        if NAME in (read(ENGINES[name].config) or ""):
            yield Finding(name, OK, f"knows of this runtime ({ENGINES[name].config})")
        else:
            yield Finding(name, LIMITED, "does not know of this runtime", f"{NAME} install --{name}")

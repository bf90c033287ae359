"""`sysvisor-runc features`: what this runtime can do, for programs that choose between runtimes."""

from __future__ import annotations

import sys

from sysvisor_runc import jsonlight
from sysvisor_runc.cli.version import libseccomp_version
from sysvisor_runc.kernel.seccomp import flag_supported
from sysvisor_runc.plan import features, seccomp_compile
from sysvisor_runc.version import SPEC_VERSION, SPEC_VERSION_MIN, VERSION, buildtags, commit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.parse import Options


def run(options: Options) -> int:
    """Print the features object, indented as runc does."""
    del options
    # TSYNC needs nothing of the kernel here, hence its 0.
    flags = [name for name, bit in seccomp_compile.FLAGS.items() if bit == 0 or flag_supported(bit)]
    answer = features.describe((SPEC_VERSION_MIN, SPEC_VERSION), buildtags(), flags, _annotations())
    sys.stdout.write(jsonlight.dumps(answer, indent=4) + "\n")
    return 0


def _annotations() -> dict[str, str]:
    annotations = {
        "org.sysvisor.version": VERSION,
        "org.sysvisor.commit": commit(),
        # runc's own key, which other runtimes may use: clients ask it before they offer a checkpoint.
        "org.opencontainers.runc.checkpoint.enabled": "false",
    }
    libseccomp = libseccomp_version() if "seccomp" in buildtags() else None
    if libseccomp:
        annotations["io.github.seccomp.libseccomp.version"] = libseccomp
    return annotations

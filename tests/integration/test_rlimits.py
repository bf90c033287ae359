"""rlimits: every type, as the kernel reports them of init and of a joined process."""

import resource

import pytest

from tests.support.bundle import Bundle
from tests.support.inside import start, user_namespace
from tests.support.runtime import Runtime

TYPES = ("CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "SIGPENDING", "MSGQUEUE",
         "NICE", "RTPRIO", "RTTIME")  # fmt: skip
INFINITY = (1 << 64) - 1
VALUES = {"CPU": 1000, "DATA": 1 << 30, "STACK": 4 << 20, "FSIZE": 1 << 40, "AS": 1 << 40, "RSS": 1 << 40}


def wanted() -> dict[str, tuple[int, int]]:
    """Soft and hard for each type: below what this process itself may have."""
    found = {}
    for kind in TYPES:
        _, hard = resource.getrlimit(getattr(resource, f"RLIMIT_{kind}"))
        value = VALUES.get(kind, 100)
        high = value + 11 if hard == resource.RLIM_INFINITY else min(hard, value + 11)
        found[kind] = (min(value, high), high)
    return found


@pytest.mark.parametrize("userns", [False, True])
def test_all_types(plain_runtime: Runtime, bundle: Bundle, userns: bool) -> None:
    """Soft and hard each; processes that join get the same."""
    if userns:
        user_namespace(bundle)
    limits = wanted()
    bundle.process["rlimits"] = [{"type": f"RLIMIT_{kind}", "soft": a, "hard": b} for kind, (a, b) in limits.items()]
    name, pid = start(plain_runtime, bundle)
    for kind, limit in limits.items():
        assert resource.prlimit(pid, getattr(resource, f"RLIMIT_{kind}")) == limit, kind
    joined = plain_runtime("exec", name, "/bin/cat", "/proc/self/limits").stdout
    line = next(line for line in joined.splitlines() if line.startswith("Max open files"))
    assert [int(word) for word in line.split()[3:5]] == list(limits["NOFILE"])


def test_infinity_and_zero(plain_runtime: Runtime, bundle: Bundle) -> None:
    """The largest number stands for no limit."""
    bundle.process["rlimits"] = [
        {"type": "RLIMIT_CORE", "soft": 0, "hard": INFINITY},
        {"type": "RLIMIT_FSIZE", "soft": INFINITY, "hard": INFINITY},
    ]
    _, pid = start(plain_runtime, bundle)
    assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, resource.RLIM_INFINITY)
    assert resource.prlimit(pid, resource.RLIMIT_FSIZE) == (resource.RLIM_INFINITY,) * 2


def test_a_limit_that_cannot_be(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Beyond fs.nr_open nobody may go: the error names the limit and its values."""
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 1 << 40, "hard": 1 << 40}]
    bundle.save()
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert "error setting rlimit RLIMIT_NOFILE" in error and "not permitted" in error

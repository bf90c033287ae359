"""Keep the options of the host's cgroup2, which criu mounts for itself without any.

They belong to the one hierarchy, not to a mount: whoever mounts cgroup2 in the initial cgroup namespace sets them for
all (cgroup-v2.rst, "Mounting"). Without `nsdelegate` a container may write what is its host's.
"""

from __future__ import annotations

import os

from sysvisor_runc import log
from sysvisor_runc.criu.mounts import read
from sysvisor_runc.errors import reason
from sysvisor_runc.kernel import mount as m

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

# What the kernel shows beside those that are cgroup2's own.
_OTHERS = frozenset(("rw", "ro", "seclabel"))


class KeptOptions:
    """A context after which the options are what they were before."""

    def __enter__(self) -> None:
        self._before = _options()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._before and _options() != self._before:
            try:
                _set(self._before)
            except OSError as problem:
                log.warning(f"criu has changed the options of cgroup2, and they cannot be put back: {reason(problem)}")


def _options() -> list[str]:
    for line in read("/proc/self/mountinfo").splitlines():
        _, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup2":
            return [option for option in options.split(",") if option not in _OTHERS]
    return []


def _set(options: list[str]) -> None:
    context = m.fsopen("cgroup2")
    try:
        for option in options:
            m.fsconfig(context, m.FSCONFIG_SET_FLAG, option)
        m.fsconfig(context, m.FSCONFIG_CMD_CREATE)
    finally:
        os.close(context)

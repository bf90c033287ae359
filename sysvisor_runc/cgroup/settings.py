"""What is written into a container's cgroups, as values that describe themselves; how, is the manager's. Pure."""

from __future__ import annotations


class Setting:
    """One value for one control file.

    Attributes:
        controller: whose hierarchy on v1, such as `memory`; on v2 it only names the culprit in an error.
        file: the control file's name.
        value: what is written, in one write.
        optional: the kernel may lack the file; then the value is dropped silently.
        again: EINVAL may only mean that another value of the list must change first (a period and its quota, memory and
            memory+swap): it is written once more after the others of its controller.
        exact: the kernel clamps instead of refusing; what reads back must be what was written.
        otherwise: written instead where the kernel lacks the file.
    """

    __slots__ = ("again", "controller", "exact", "file", "optional", "otherwise", "value")

    def __init__(
        self,
        controller: str,
        file: str,
        value: str | int,
        *,
        optional: bool = False,
        again: bool = False,
        exact: bool = False,
        otherwise: Setting | None = None,
    ) -> None:
        self.controller = controller
        self.file = file
        self.value = str(value)
        self.optional = optional
        self.again = again
        self.exact = exact
        self.otherwise = otherwise

    @property
    def flat(self) -> bool:
        """Whether it binds one cgroup only and not what is below: v1's throttles and network marks."""
        return self.controller in ("net_cls", "net_prio") or self.file.startswith("blkio.throttle.")

    def describe(self) -> str:
        return f"{self.file} = {self.value}"


class UsageCheck:
    """Refuse to go on where `file` already reads `limit` or more; `what` names the limit in the error.

    A limit below the usage makes the kernel kill; `memory.checkBeforeUpdate` asks for an error instead.
    """

    __slots__ = ("controller", "file", "limit", "what")

    def __init__(self, controller: str, file: str, limit: int, what: str) -> None:
        self.controller = controller
        self.file = file
        self.limit = limit
        self.what = what

    def describe(self) -> str:
        return f"check that {self.file} < {self.limit}"

"""Wishes that a container's own configuration carries: `SYSVISOR_*` variables and `org.sysvisor.*` annotations."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Process, Spec


class Settings:
    """What was asked for; the defaults are those of a configuration that says nothing."""

    __slots__ = ("chown_rootfs", "cpuset_from_quota", "honor_caps", "skip_uid_shift", "syscont_mode")

    def __init__(self) -> None:
        self.syscont_mode = True  # False: a plain OCI container
        self.honor_caps = False  # capabilities stay exactly as the spec lists them
        self.chown_rootfs = False  # the rootfs may be chowned where it cannot be ID-mapped
        self.cpuset_from_quota = False  # as many CPUs as the quota is worth
        self.skip_uid_shift: frozenset[str] = frozenset()  # destinations whose binds are never ID-mapped


def read_settings(spec: Spec, process: Process | None = None) -> Settings:
    """The settings of a container, or of a process that joins it.

    Later ones win: variables of the container's process, variables of `process`, annotations (the caller writes those,
    while an image may bring variables).
    Raises SpecError for an unknown `SYSVISOR_*` variable in a spec or a value that is not one.
    """
    settings = Settings()
    wishes = _wishes(spec, process)
    if wishes:
        from sysvisor_runc.syscont.wishes import read

        for name, value in read(wishes).items():
            setattr(settings, name, value)
    return settings


def _wishes(spec: Spec, process: Process | None = None) -> list[tuple[str, str]]:
    wishes = []
    for source in (spec.get("process"), process):
        for index, entry in enumerate(source.get("env", ()) if source else ()):
            if entry.startswith("SYSVISOR_"):
                wishes.append((f"process.env[{index}]", entry))
    for key, text in spec.get("annotations", {}).items():
        if key.startswith("org.sysvisor."):
            wishes.append((f"annotations[{key!r}]", f"{key}={text}"))
    return wishes


def is_disabled(spec: Spec, *, allowed: bool = True) -> bool:
    """Whether this container asks to be made exactly as its spec says.

    Raises SpecError as `read_settings` does, and where that is not `allowed`.
    """
    if read_settings(spec).syscont_mode:
        return False
    if not allowed:
        from sysvisor_runc.syscont.wishes import not_allowed

        raise not_allowed(_wishes(spec))
    return True

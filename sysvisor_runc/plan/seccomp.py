"""The seccomp filter of a container as bytes for the kernel: from the cache, or compiled anew and put there.

Every launch imports this, so what a cache hit does not need (libseccomp, the tables, writing) is in
`plan.seccomp_compile`, imported on a miss only.
"""

from __future__ import annotations

import os
from _blake2 import blake2b

from sysvisor_runc.errors import SpecError
from sysvisor_runc.plan.seccomp_cache import cached
from sysvisor_runc.plan.tags import require

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.plan.seccomp_cache import Filter
    from sysvisor_runc.spec.types import Linux, Seccomp

# Part of the key: raise it whenever the same profile must compile to something else.
FORMAT = 1


def compile(seccomp: Seccomp, cache_dir: str | None) -> Filter:  # noqa: A001  # always called as seccomp.compile
    """The filter for `linux.seccomp`.

    `cache_dir` is made on demand, in a directory that exists; None does without a cache. A cache that cannot be
    read or written is no error, and one that others could have written is not believed.

    Raises:
        SpecError: the profile is invalid, or more than the kernel takes.
        SysvisorError: libseccomp is missing or failed.
    """
    require("seccomp", "linux.seccomp")
    key = _key(seccomp)
    entry = f"{cache_dir}/{key.hex()}" if cache_dir else ""
    result = cached(entry, key) if entry else None
    if result is None:
        from sysvisor_runc.plan import seccomp_compile

        result, library = seccomp_compile.compile(seccomp)
        if entry:
            seccomp_compile.store(entry, key, result, library)
    _set_listener(result, seccomp)
    result.may_fork = _may_fork(seccomp)
    return result


def compile_for(linux: Linux, root: str) -> Filter | None:
    """The filter of a container whose state is below `root`; None where it has none. Raises as `compile`."""
    profile = linux.get("seccomp")
    if not profile or not profile.get("defaultAction"):
        return None
    return compile(profile, f"{root}/@seccomp")


def _may_fork(seccomp: Seccomp) -> bool:
    actions = {rule["action"] for rule in seccomp.get("syscalls") or () if "clone" in rule["names"]}
    return (actions or {seccomp["defaultAction"]}) == {"SCMP_ACT_ALLOW"}


def _key(seccomp: Seccomp) -> bytes:
    # repr() of what a JSON parser returns is unambiguous and costs no import. Where the agent listens and what it is
    # told differ between containers that share a filter. The kernel release counts because libseccomp asks the
    # running kernel what it can do.
    rules = {name: value for name, value in seccomp.items() if name not in ("listenerPath", "listenerMetadata")}
    host = os.uname()
    return blake2b(repr((FORMAT, host.machine, host.release, rules)).encode(), digest_size=32).digest()


def _set_listener(result: Filter, seccomp: Seccomp) -> None:
    path = seccomp.get("listenerPath") or ""
    metadata = seccomp.get("listenerMetadata") or ""
    if metadata and not path:
        raise SpecError("linux.seccomp.listenerMetadata", "must not be set without listenerPath")
    if not result.notify:
        return  # a path that nothing would be sent to is allowed, and ignored
    if not path:
        raise SpecError("linux.seccomp.listenerPath", "must be set for rules with SCMP_ACT_NOTIFY")
    result.listener_path = path
    result.listener_metadata = metadata

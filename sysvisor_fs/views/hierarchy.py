"""Where a container's numbers are: which directory holds a controller's files, in which version, below which others."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sysvisor_fs.node import Container

UNIFIED = "unified"
_MOST = 4096
_levels: dict[str, tuple[str, ...]] = {}
_bounding: dict[str, tuple[str, ...]] = {}


class Home(NamedTuple):
    """A controller's directory for one container, and whether it is cgroup v2."""

    path: str
    v2: bool


def home(container: Container, controller: str) -> Home | None:
    """Where a controller is: on a hybrid layout most are v1. None where the container has no cgroup for it."""
    path = container.cgroups.get(controller)
    if path is not None:
        return Home(path, False)
    path = container.cgroups.get(UNIFIED)
    return Home(path, True) if path is not None else None


def levels(path: str) -> tuple[str, ...]:
    """The directory and those above it that are cgroups too, nearest first: each one's limit binds."""
    known = _levels.get(path)
    if known is not None:
        return known
    found = []
    at = path
    while os.path.exists(f"{at}/cgroup.procs"):
        found.append(at)
        above = os.path.dirname(at)
        if above == at:
            break
        at = above
    answer = tuple(found)
    if answer:
        if len(_levels) >= _MOST:
            _levels.clear()
        _levels[path] = answer
    return answer


def bounding(path: str) -> tuple[str, ...]:
    """As `levels`, without the root of the hierarchy, which limits nothing."""
    known = _bounding.get(path)
    if known is not None:
        return known
    answer = levels(path)
    if not answer:
        return answer
    if _is_root(answer[-1]):
        answer = answer[:-1]
    if len(_bounding) >= _MOST:
        _bounding.clear()
    _bounding[path] = answer
    return answer


def _is_root(path: str) -> bool:
    """A v1 root alone has a release agent, and it alone of v2 no events."""
    if os.path.exists(f"{path}/release_agent"):
        return True
    return os.path.exists(f"{path}/cgroup.controllers") and not os.path.exists(f"{path}/cgroup.events")

"""Mount and set for a container what is governed by a namespace that it joins and does not own (`plan.foreign`)."""

from __future__ import annotations

import os

from sysvisor_runc.child.mounts import new_mount
from sysvisor_runc.errors import LaunchError, reason
from sysvisor_runc.kernel import file
from sysvisor_runc.kernel.namespaces import setns
from sysvisor_runc.launch.shelf import with_shelf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysvisor_runc.plan.foreign import ForeignTree


def make_foreign_tree(tree: ForeignTree) -> int:
    """The file system as a detached mount. Raises LaunchError."""
    kind, path = tree.namespace
    fd = _open(path)

    def work(shelf: int) -> list[int]:
        del shelf
        setns(fd, kind, operand=path)
        return [new_mount(tree.fstype, tree.fstype, (), tree.where)]

    try:
        (mounted,) = with_shelf(f"{tree.where}: mount {tree.fstype}", work)
    finally:
        os.close(fd)
    return mounted


def write_joined_sysctls(join: Sequence[tuple[int, str]], values: Sequence[tuple[int, str, str]]) -> None:
    """Set sysctls (nstype, name below /proc/sys, value) of namespaces (nstype, path) that are joined.

    Raises:
        LaunchError: one is refused, or its namespace is gone.
    """
    for kind, path in join:
        of_this = [(name, value) for nstype, name, value in values if nstype == kind]
        if of_this:
            _write_sysctls(kind, path, of_this)


def _write_sysctls(kind: int, path: str, values: Sequence[tuple[str, str]]) -> None:
    fd = _open(path)

    def work(shelf: int) -> list[int]:
        del shelf
        setns(fd, kind, operand=path)
        proc = new_mount("proc", "proc", (), "private procfs")
        for name, value in values:
            _write(proc, name, value)
        return []

    try:
        with_shelf("linux.sysctl", work)
    finally:
        os.close(fd)


def _write(proc: int, name: str, value: str) -> None:
    try:
        file.write(f"sys/{name}", value, proc)
    except OSError as error:
        raise LaunchError(f"set {name.replace('/', '.')}={value}: {reason(error)}") from error


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise LaunchError(f"namespace {path!r}: {reason(error)}") from error

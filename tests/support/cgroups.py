"""A container's cgroups without a container: read and set them, and put processes there."""

import os
import pathlib
import time
from collections.abc import Callable

import pytest

from sysvisor_runc.cgroup.layout import UNIFIED
from sysvisor_runc.cgroup.manager import Manager
from sysvisor_runc.cgroup.resources import convert
from sysvisor_runc.kernel.namespaces import clone3
from sysvisor_runc.spec.types import LinuxResources

UID = 300000  # of the container's root, on the host


def value(manager: Manager, v1: str, v2: str | None = None) -> str:
    """What a control file of the container reads: the v1 name's, or the v2 name's."""
    if manager.v2:
        return pathlib.Path(manager.paths[UNIFIED], v2 or v1).read_text().strip()
    return pathlib.Path(manager.paths[v1.partition(".")[0]], v1).read_text().strip()


def needs(manager: Manager, controller: str) -> None:
    """Skip where the machine lacks a controller."""
    if manager.v2:
        available = pathlib.Path(manager.paths[UNIFIED], "cgroup.controllers").read_text().split()
    else:
        available = list(manager.paths)
    if controller not in available:
        pytest.skip(f"no {controller} controller here; to force it: make test-vm")


def apply(manager: Manager, resources: LinuxResources) -> None:
    """Set what linux.resources says, but for devices."""
    manager.apply(convert(resources, "v2" if manager.v2 else "v1", devices=False))


def start(manager: Manager, body: Callable[[], object] | None = None, *, gid_uid: int = 0) -> int:
    """Start a process in the container's cgroups as a launch does, and wait until it is there; returns its pid."""
    fds = manager.join_fds()
    into = manager.clone_into_fd(manager.exec_paths())
    done, tell = os.pipe()
    pid, pidfd = clone3(0, cgroup_fd=into)
    if pid == 0:
        status = 1
        try:
            for fd in fds:
                os.write(fd, b"0")
            if gid_uid:
                os.setgid(gid_uid)
                os.setuid(gid_uid)
            os.write(tell, b"x")
            if body is None:
                while True:
                    time.sleep(100)
            status = 0 if body() in (None, True) else 1
        finally:
            os._exit(status)
    for fd in (*fds, pidfd, tell, *([] if into is None else [into])):
        os.close(fd)
    assert os.read(done, 1) == b"x"
    os.close(done)
    return pid


def exit_code(pid: int) -> int:
    """Wait for a child of ours: its exit code, a negative signal number."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def as_container_root(manager: Manager, body: Callable[[], object]) -> int:
    """Run `body` in the container's cgroups as the user `UID`, to whom they are delegated: the exit code."""
    return exit_code(start(manager, body, gid_uid=UID))

"""Mounts that sysvisor-fs serves. The host gets them from the daemon while the root file system is being furnished.

Loaded only with sysvisor-fs. May import child and kernel.
"""

from __future__ import annotations

import os

from sysvisor_runc.child import channel, late, paths
from sysvisor_runc.child.mounts import attach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.child.mounts import Attributes, Rootfs


class ReceiveTrees:
    """Wait for the daemon's mounts, which the host sends through a socket; those that it has not stay away."""

    __slots__ = ("count",)

    def __init__(self, count: int) -> None:
        self.count = count

    def describe(self) -> str:
        return f"receive {self.count} mounts of sysvisor-fs"

    def execute(self, rootfs: Rootfs) -> None:
        rootfs.ask_host(channel.FS_TREES, "")
        late.receive(rootfs.fs_socket, rootfs.trees)


class ServedMount:
    """Show a received mount at `destination`, a path of procfs or sysfs; one that this kernel has not is left out."""

    __slots__ = ("attributes", "destination", "tree")

    def __init__(self, tree: int, destination: str, attributes: Attributes) -> None:
        self.tree = tree
        self.destination = destination
        self.attributes = attributes

    def describe(self) -> str:
        return f"serve {self.destination} by sysvisor-fs{self.attributes.describe()}"

    def execute(self, rootfs: Rootfs) -> None:
        tree = rootfs.trees.get(self.tree)
        if tree is None:
            return
        try:
            destination = paths.open_in_root(rootfs.root, self.destination)
        except FileNotFoundError:
            return
        try:
            self.attributes.apply(tree, self.destination)
            attach(tree, destination, self.destination)
        finally:
            os.close(destination)
        self.attributes.apply_propagation(tree, self.destination)


class Register:
    """Have the host tell the daemon who the container is: from here on what is served is its own."""

    __slots__ = ()

    def describe(self) -> str:
        return "register with sysvisor-fs"

    def execute(self, rootfs: Rootfs) -> None:
        rootfs.ask_host(channel.FS_REGISTER, "")

"""Node ids and the paths they stand for, the same in every process and for every container.

An id is a hash of the path, so that a successor gives out the same; the paths that the kernel has been told are kept in
a file beside the registrations, since a hash cannot be turned around and an open file is only ever named by its id.
"""

from __future__ import annotations

import errno
import os
import threading
from _blake2 import blake2b  # hashlib would load OpenSSL
from typing import TYPE_CHECKING

from sysvisor_fs.fuse.protocol import ROOT_ID

if TYPE_CHECKING:
    from sysvisor_fs.node import Node

_SLACK = 4096  # forgotten names that the file may hold before it is written anew


class Name:
    """A path that some kernel knows.

    Attributes:
        node: what is there, once somebody has looked.
        users: connections that know it; a file's leftover of a predecessor counts as one for ever.
    """

    __slots__ = ("node", "path", "users")

    def __init__(self, path: str, node: Node | None, users: int) -> None:
        self.path = path
        self.node = node
        self.users = users


def node_id(path: str) -> int:
    """The id of a path: 63 bits, never 0 or the root's."""
    number = int.from_bytes(blake2b(os.fsencode(path), digest_size=8).digest(), "little") >> 1
    return number if number > ROOT_ID else number + 2


class Names:
    """The table, and its file.

    Attributes:
        table: by id.
        lock: held while a name is entered or left and counted; nothing waits with it but a write to a tmpfs.
    """

    def __init__(self, path: str, root: Node) -> None:
        self._path = path
        self.table: dict[int, Name] = {ROOT_ID: Name("", root, 1)}
        self._forgotten = 0
        self.lock = threading.Lock()
        for line in self._read().split(b"\0"):
            if line:
                known = os.fsdecode(line)
                self.table[node_id(known)] = Name(known, None, 1)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _read(self) -> bytes:
        try:
            with open(self._path, "rb") as file:
                text = file.read()
        except FileNotFoundError:
            return b""
        return text[: text.rfind(b"\0") + 1]  # a line that was cut short was never told to the kernel

    def enter(self, path: str, node: Node) -> int:
        """The id of a path that the kernel is about to be told.

        Raises:
            OSError: EIO, another path has the same hash.
        """
        number = node_id(path)
        name = self.table.get(number)
        if name is None:
            os.write(self._fd, os.fsencode(path) + b"\0")
            self.table[number] = Name(path, node, 0)
        elif name.path != path:
            raise OSError(errno.EIO, "two paths with one id")
        else:
            name.node = node
        return number

    def leave(self, number: int) -> None:
        """One connection knows it no more."""
        name = self.table.get(number)
        if name is None or number == ROOT_ID:
            return
        name.users -= 1
        if name.users <= 0:
            del self.table[number]
            self._forgotten += 1
            if self._forgotten > _SLACK + len(self.table):
                self._rewrite()

    def _rewrite(self) -> None:
        partial = f"{self._path}.new"
        fd = os.open(partial, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        rest = memoryview(b"".join(os.fsencode(name.path) + b"\0" for name in self.table.values() if name.path))
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.replace(partial, self._path)
        os.close(self._fd)
        self._fd, self._forgotten = fd, 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

"""/sys/devices/system/cpu: the container's CPUs, numbered from 0, with what the host says of each."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from sysvisor_fs.node import DT_DIR, FOREVER, Attributes, Directory, File
from sysvisor_fs.nodes.sysfs import SysDirectory, SysFile
from sysvisor_fs.passthrough import reach
from sysvisor_fs.views import cpu

if TYPE_CHECKING:
    from sysvisor_fs.node import Caller, Container, Node

PLACE = "devices/system/cpu"
_LISTS = frozenset(("online", "present", "possible"))
_EMPTY = frozenset(("offline", "isolated", "nohz_full"))
# Directories and files that say something of each CPU of the host by its number there.
_HIDDEN = frozenset(("cpufreq", "hotplug", "power", "uevent", "enabled", "crash_hotplug"))


def _number(name: str) -> int | None:
    digits = name[3:]
    return int(digits) if name.startswith("cpu") and digits.isdigit() and str(int(digits)) == digits else None


class CpuList(File):
    """online, present, possible: all that the container has; offline: none."""

    valid = FOREVER

    def __init__(self, empty: bool) -> None:
        self.empty = empty

    def read(self, container: Container, caller: Caller) -> bytes:
        """As the kernel writes a list."""
        return b"\n" if self.empty else cpu.format_list(range_of(container))


def range_of(container: Container) -> tuple[int, ...]:
    """The numbers of its CPUs inside."""
    return tuple(range(len(cpu.visible(container))))


class CpusDirectory(Directory):
    """The directory of all."""

    valid = FOREVER

    fast = False

    def __init__(self) -> None:
        self.host = SysDirectory(PLACE)

    def names(self, container: Container, caller: Caller) -> list[tuple[str, int]]:
        """The host's, with the container's CPUs for its."""
        found = [
            (name, kind)
            for name, kind in self.host.names(container, caller)
            if _number(name) is None and name not in _HIDDEN
        ]
        return found + [(f"cpu{number}", DT_DIR) for number in range_of(container)]

    def lookup(self, container: Container, caller: Caller, name: str) -> Node:
        """A list, one CPU, or what the host says of them all."""
        if name in _LISTS or name in _EMPTY:
            return CpuList(name in _EMPTY)
        number = _number(name)
        if number is None and name not in _HIDDEN:
            return self.host.lookup(container, caller, name)
        if number is None or number not in range_of(container):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return OneCpu(number, "")


class OneCpu(Directory):
    """cpuN or a directory below it, of the host's CPU that it stands for at the time."""

    fast = False

    def __init__(self, number: int, below: str) -> None:
        self.number = number
        self.below = below

    def place(self, container: Container) -> str:
        """The path below /sys. ENOENT once the container has fewer CPUs."""
        cpus = cpu.visible(container)
        if self.number >= len(cpus):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return f"{PLACE}/cpu{cpus[self.number]}{self.below}"

    def attributes(self, container: Container, caller: Caller) -> Attributes:
        """A directory, while there is that CPU."""
        self.place(container)
        return super().attributes(container, caller)

    def names(self, container: Container, caller: Caller) -> list[tuple[str, int]]:
        """The host's."""
        return SysDirectory(self.place(container)).names(container, caller)

    def lookup(self, container: Container, caller: Caller, name: str) -> Node:
        """The host's, with lists and masks of CPUs in the container's numbers."""
        found = SysDirectory(self.place(container)).lookup(container, caller, name)
        below = f"{self.below}/{reach.component(name)}"
        if isinstance(found, SysDirectory):
            return OneCpu(self.number, below)
        if isinstance(found, SysFile) and name.endswith(("_list", "_cpus", "_siblings", "_cpu_map")):
            return Neighbours(OneCpu(self.number, below))
        return found


class Neighbours(File):
    """A list or a mask of CPUs that share something."""

    fast = False

    def __init__(self, at: OneCpu) -> None:
        self.at = at

    def attributes(self, container: Container, caller: Caller) -> Attributes:
        """As a file of the container's root."""
        return Attributes(stat.S_IFREG | 0o444, 4096, container.root_uid, container.root_gid)

    def read(self, container: Container, caller: Caller) -> bytes:
        """Those of them that the container has."""
        path = self.at.place(container)
        text = SysFile(path).read(container, caller)
        cpus = cpu.visible(container)
        if path.endswith("_list"):
            hosts = set(cpu.parse_list(text))
        else:
            mask = int(text.strip().replace(b",", b"") or b"0", 16)
            hosts = {number for number in range(mask.bit_length()) if mask >> number & 1}
        inside = [number for number, host in enumerate(cpus) if host in hosts]
        if path.endswith("_list"):
            return cpu.format_list(inside)
        return _mask(sum(1 << number for number in inside), len(text.strip().replace(b",", b"")))


def _mask(value: int, width: int) -> bytes:
    """As the kernel prints a bitmap: groups of eight hexadecimal digits."""
    digits = f"{value:0{width}x}"
    groups = [digits[max(0, end - 8) : end] for end in range(len(digits), 0, -8)]
    return ",".join(reversed(groups)).encode() + b"\n"

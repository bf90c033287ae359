"""/proc/cpuinfo, /proc/stat, /proc/uptime and /proc/loadavg: a container's processors, and how busy they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sysvisor_fs.node import FOREVER, File
from sysvisor_fs.views import cpu, files
from sysvisor_fs.views.clock import age_ns, started
from sysvisor_fs.views.load import FIXED_1, load_of

if TYPE_CHECKING:
    from sysvisor_fs.node import Caller, Container

_TICK = 10_000_000  # nanoseconds: USER_HZ is 100 on every architecture that we know
_CPUINFO_AGE = 1.0  # seconds; only the clock rates move
_COUNTS = (b"siblings", b"cpu cores")
_MOST = 64  # sets of CPUs
_latest: tuple[bytes, dict[tuple[int, ...], bytes]] = b"", {}  # a text of the host, and what was made of it


def cpuinfo(host: bytes, cpus: tuple[int, ...]) -> bytes:
    """The host's blocks of these CPUs, numbered from 0; what is in no CPU's block stays."""
    wanted = {number: place for place, number in enumerate(cpus)}
    blocks = []
    for block in host.rstrip(b"\n").split(b"\n\n"):
        head, _, rest = block.partition(b"\n")
        name, colon, value = head.partition(b":")
        if name.strip() != b"processor" or not value.strip().isdigit():
            blocks.append(block)
        elif (place := wanted.get(int(value))) is not None:
            lines = [b"%s%s %d" % (name, colon, place), *(_bounded(line, len(cpus)) for line in rest.split(b"\n"))]
            blocks.append(b"\n".join(lines))
    return b"".join(block + b"\n\n" for block in blocks)


def _bounded(line: bytes, most: int) -> bytes:
    """No package has more CPUs than there are."""
    name, colon, value = line.partition(b":")
    if name.strip() in _COUNTS and value.strip().isdigit():
        return b"%s%s %d" % (name, colon, min(int(value), most))
    return line


class Cpuinfo(File):
    """/proc/cpuinfo."""

    valid = FOREVER

    def read(self, container: Container, caller: Caller) -> bytes:
        """The container's CPUs."""
        global _latest
        host, cpus = files.host("/proc/cpuinfo", _CPUINFO_AGE), cpu.visible(container)
        known = _latest
        if known[0] is not host or len(known[1]) >= _MOST:
            _latest = known = host, {}
        text = known[1].get(cpus)
        if text is None:
            text = known[1][cpus] = cpuinfo(host, cpus)
        return text


class Stat(File):
    """/proc/stat. Interrupts and context switches are not counted by container: they read 0."""

    valid = FOREVER

    def read(self, container: Container, caller: Caller) -> bytes:
        """User, system and idle time by CPU; the sum is exactly that of the lines below it."""
        lines = []
        user = system = idle = 0
        for number, one in enumerate(cpu.busy(container)):
            ran, served, slept = one.user // _TICK, one.system // _TICK, one.idle // _TICK
            user, system, idle = user + ran, system + served, idle + slept
            lines.append(b"cpu%d %d 0 %d %d 0 0 0 0 0 0\n" % (number, ran, served, slept))
        load = load_of(container)
        return b"".join((
            b"cpu  %d 0 %d %d 0 0 0 0 0 0\n" % (user, system, idle),
            *lines,
            b"intr 0\nctxt 0\nbtime %d\nprocesses %d\n" % (started(container), load.tasks),
            b"procs_running %d\nprocs_blocked %d\n" % (max(1, load.running), load.blocked),
            b"softirq 0 0 0 0 0 0 0 0 0 0 0\n",
        ))  # fmt: skip


class Uptime(File):
    """/proc/uptime."""

    valid = FOREVER

    def read(self, container: Container, caller: Caller) -> bytes:
        """Seconds since the container started, and the idle seconds of its CPUs together, as in /proc/stat."""
        up = age_ns(container) // _TICK
        idle = sum(one.idle // _TICK for one in cpu.busy(container))
        return b"%d.%02d %d.%02d\n" % (up // 100, up % 100, idle // 100, idle % 100)


class Loadavg(File):
    """/proc/loadavg."""

    valid = FOREVER

    def read(self, container: Container, caller: Caller) -> bytes:
        """As the kernel prints them, rounded to the nearest hundredth (fs/proc/loadavg.c)."""
        load = load_of(container)
        one, five, fifteen = map(_fixed, load.averages)
        return b"%s %s %s %d/%d %d\n" % (
            one, five, fifteen, max(1, load.running), max(1, load.tasks), load.last_pid or 1,
        )  # fmt: skip


def _fixed(average: int) -> bytes:
    rounded = average + FIXED_1 // 200
    return b"%d.%02d" % (rounded // FIXED_1, rounded % FIXED_1 * 100 // FIXED_1)
